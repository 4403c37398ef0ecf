/** Tracers that write down the spans of an effect. */
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

/** Who is told what is said of a span. */
interface Heard {
  readonly attribute: (key: string, value: unknown) => unknown
  readonly event: (name: string, attributes: unknown) => unknown
  readonly end: (exit: Exit.Exit<unknown, unknown>) => unknown
}

/** A tracer that has each span heard by what it is told of its beginning. */
export const tracerTo = (
  begin: (name: string, parent: Option.Option<Tracer.AnySpan>, kind: Tracer.SpanKind) => Heard
): Tracer.Tracer => {
  let made = 0
  return Tracer.make({
    context: (run) => run(),
    span: (name, parent, context, links, startTime, kind) => {
      const heard = begin(name, parent, kind)
      let status: Tracer.SpanStatus = { _tag: "Started", startTime }
      return {
        _tag: "Span",
        name,
        spanId: String(made++),
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
        attribute: (key, value) => void heard.attribute(key, value),
        event: (name, _time, attributes) => void heard.event(name, attributes),
        addLinks: () => undefined,
        end: (endTime, exit) => {
          status = { _tag: "Ended", startTime, endTime, exit }
          heard.end(exit)
        }
      }
    }
  })
}

/** The spans of the effect that have ended, in the order of their ends. */
export const recording = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const spans: Array<Recorded> = []
    const tracer = tracerTo((name, parent, kind) => {
      const attributes: Record<string, unknown> = {}
      const events: Array<string> = []
      const above = Option.getOrUndefined(parent)
      return {
        attribute: (key, value) => {
          attributes[key] = value
        },
        event: (event) => events.push(event),
        end: (exit) =>
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
    })
    return Effect.map(Effect.exit(Effect.withTracer(effect, tracer)), () => spans)
  })
