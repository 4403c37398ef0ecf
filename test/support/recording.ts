/** A tracer that writes down the spans of an effect. */
import { Cause, Effect, Exit, Option, Tracer } from "effect"

export interface Recorded {
  readonly name: string
  readonly kind: string
  readonly parent: string | undefined
  readonly attributes: Readonly<Record<string, unknown>>
  readonly events: ReadonlyArray<string>
  readonly succeeded: boolean
  /** What exporters make of a failure. */
  readonly error: string
}

/** The spans of the effect that have ended, in the order of their ends. */
export const recording = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const spans: Array<Recorded> = []
    const tracer = Tracer.make({
      span: (name, parent, context, links, startTime, kind) => {
        const attributes: Record<string, unknown> = {}
        const events: Array<string> = []
        let status: Tracer.SpanStatus = { _tag: "Started", startTime }
        const span: Tracer.Span = {
          _tag: "Span",
          name,
          spanId: String(spans.length),
          traceId: "trace",
          parent,
          context,
          get status() {
            return status
          },
          attributes: new Map(),
          links,
          sampled: true,
          kind,
          attribute: (key, value) => {
            attributes[key] = value
          },
          event: (event) => {
            events.push(event)
          },
          addLinks: () => undefined,
          end: (endTime, exit) => {
            status = { _tag: "Ended", startTime, endTime, exit }
            const above = Option.getOrUndefined(parent)
            spans.push({
              name,
              kind,
              parent: above?._tag === "Span" ? above.name : undefined,
              attributes,
              events,
              succeeded: Exit.isSuccess(exit),
              error: Exit.isSuccess(exit) ? "" : Cause.pretty(exit.cause, { renderErrorCause: true })
            })
          }
        }
        return span
      },
      context: (run) => run()
    })
    return Effect.map(Effect.exit(Effect.withTracer(effect, tracer)), () => spans)
  })
