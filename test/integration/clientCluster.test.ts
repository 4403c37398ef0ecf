/** The message storage of `@effect/cluster` on `@effect/sql`, as on the field's own client. */
import * as EntityAddress from "@effect/cluster/EntityAddress"
import * as EntityId from "@effect/cluster/EntityId"
import * as EntityType from "@effect/cluster/EntityType"
import * as Envelope from "@effect/cluster/Envelope"
import * as MachineId from "@effect/cluster/MachineId"
import * as Message from "@effect/cluster/Message"
import * as MessageStorage from "@effect/cluster/MessageStorage"
import * as Reply from "@effect/cluster/Reply"
import * as ShardId from "@effect/cluster/ShardId"
import * as ShardingConfig from "@effect/cluster/ShardingConfig"
import * as Snowflake from "@effect/cluster/Snowflake"
import * as SqlMessageStorage from "@effect/cluster/SqlMessageStorage"
import * as Headers from "@effect/platform/Headers"
import * as Rpc from "@effect/rpc/Rpc"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { places } from "../support/clientPrograms.js"

const payload = { name: Schema.String }
const Greet = Rpc.make("Greet", { payload, success: Schema.String })
const Once = Rpc.make("Once", { payload, success: Schema.String, primaryKey: ({ name }) => name })
const Spell = Rpc.make("Spell", { payload, success: Schema.String, stream: true })

/** Ids that a number of JavaScript cannot hold, the same wherever the program runs. */
const idOf = (sequence: number) =>
  Snowflake.make({ machineId: MachineId.make(1), sequence, timestamp: Date.UTC(2026, 0, 2, 3, 4, 5, 6) })
const text = (sequence: number) => String(idOf(sequence))

const shard = (id: number) => ShardId.make("default", id)
const address = (shardId: number, entityId = "it's \"one\"") =>
  EntityAddress.make({
    shardId: shard(shardId),
    entityType: EntityType.EntityType.make("Greeter"),
    entityId: EntityId.make(entityId)
  })

type AnyRpc = typeof Greet | typeof Once | typeof Spell

const request = (rpc: AnyRpc, id: number, name: string, to = address(1)) =>
  new Message.OutgoingRequest<AnyRpc>({
    rpc,
    envelope: Envelope.makeRequest<AnyRpc>({
      requestId: idOf(id),
      address: to,
      tag: rpc._tag,
      payload: rpc.payloadSchema.make({ name }) as Rpc.Payload<AnyRpc>,
      headers: Headers.fromInput({ lang: "é" }),
      traceId: "trace",
      spanId: "span",
      sampled: true
    }),
    context: Context.empty() as Context.Context<Rpc.Context<AnyRpc>>,
    lastReceivedReply: Option.none(),
    respond: () => Effect.void
  })

const reply = (rpc: AnyRpc, is: Reply.Reply<AnyRpc>) =>
  new Reply.ReplyWithContext<AnyRpc>({
    reply: is,
    rpc,
    context: Context.empty() as Context.Context<Rpc.Context<AnyRpc>>
  })
const end = (id: number, requestId: number, value: string) =>
  new Reply.WithExit<AnyRpc>({
    id: idOf(id),
    requestId: idOf(requestId),
    exit: Exit.succeed(value) as Rpc.Exit<AnyRpc>
  })
const chunk = (id: number, requestId: number, sequence: number, value: string) =>
  new Reply.Chunk<AnyRpc>({ id: idOf(id), requestId: idOf(requestId), sequence, values: [value as never] })

/** What is waiting at the shards: the kind, the request it belongs to and, of a request, the rest. */
const waiting = (...shards: ReadonlyArray<number>) =>
  Effect.flatMap(MessageStorage.MessageStorage, (storage) => storage.unprocessedMessages(shards.map(shard))).pipe(
    Effect.map((messages) => messages.map(brief))
  )
const brief = (message: Message.Incoming<never>) => {
  const { envelope } = message
  return envelope._tag === "Request" && message._tag === "IncomingRequest"
    ? [envelope.tag, String(envelope.requestId), envelope.payload, Option.getOrNull(message.lastSentReply)]
    : [envelope._tag, String(envelope.requestId)]
}

const saved = (result: MessageStorage.SaveResult<AnyRpc>) =>
  result._tag === "Success" ? "Success" : [
    String(result.originalId),
    Option.getOrNull(Option.map(result.lastReceivedReply, repliedWith))
  ]
const repliedWith = (is: Reply.Reply<AnyRpc>) =>
  is._tag === "WithExit" ? Exit.getOrElse(is.exit as Exit.Exit<unknown>, () => "failed") : is.values

const storage = SqlMessageStorage.layerWith({ prefix: "shop" }).pipe(Layer.provide(ShardingConfig.layerDefaults))
const withStorage = <A, E>(
  use: (storage: MessageStorage.MessageStorage["Type"]) => Effect.Effect<
    A,
    E,
    MessageStorage.MessageStorage | SqlClient.SqlClient
  >
): Effect.Effect<A, E, SqlClient.SqlClient> =>
  Effect.provide(Effect.flatMap(MessageStorage.MessageStorage, use), storage)

describe.each(places)("the message storage of a cluster %s", (_, run) => {
  it.live("keeps requests, and gives those of a shard that nobody has read", () =>
    Effect.gen(function*() {
      const found = yield* run(withStorage((storage) =>
        Effect.gen(function*() {
          const all = [request(Greet, 1, "Ada"), request(Greet, 2, "it's"), request(Greet, 3, "Cy", address(2))]
          const results = yield* Effect.forEach(all, (one) => Effect.map(storage.saveRequest(one), saved))
          const reads = [yield* waiting(1), yield* waiting(1), yield* waiting(1, 2)]
          yield* storage.resetShards([shard(1)])
          reads.push(yield* waiting(1, 2))
          yield* storage.resetAddress(address(2))
          reads.push(yield* waiting(1, 2))
          const byId = yield* storage.unprocessedMessagesById([idOf(3), idOf(1), idOf(9)])
          const [full] = byId
          return { results, reads, byId: byId.map(brief), full: full!.envelope }
        })
      ))
      const [ada, bob, cy] = ["Ada", "it's", "Cy"].map((name, at) => ["Greet", text(at + 1), { name }, null])
      expect(found).toEqual({
        results: ["Success", "Success", "Success"],
        reads: [[ada, bob], [], [cy], [ada, bob], [cy]],
        byId: [ada, cy],
        full: expect.objectContaining({
          address: address(1),
          headers: { lang: "é" },
          traceId: "trace",
          spanId: "span",
          sampled: true
        })
      })
    }))

  it.live("knows a request by its primary key and tells what was answered", () =>
    Effect.gen(function*() {
      const long = "é".repeat(300)
      const found = yield* run(withStorage((storage) =>
        Effect.gen(function*() {
          const save = (id: number, name: string) => Effect.map(storage.saveRequest(request(Once, id, name)), saved)
          const results = [yield* save(1, "key"), yield* save(2, "key"), yield* save(3, long), yield* save(4, long)]
          yield* storage.saveReply(reply(Once, end(11, 1, "done")))
          results.push(yield* save(5, "key"))
          const find = (id: string) =>
            Effect.map(
              storage.requestIdForPrimaryKey({ address: address(1), tag: "Once", id }),
              Option.map((id) => String(id))
            )
          return {
            results,
            found: [yield* find("key"), yield* find(long), yield* find("KEY?")],
            left: yield* waiting(1)
          }
        })
      ))
      expect(found).toEqual({
        results: ["Success", [text(1), null], "Success", [text(3), null], [text(1), "done"]],
        found: [Option.some(text(1)), Option.some(text(3)), Option.none()],
        left: [["Once", text(3), { name: long }, null]]
      })
    }))

  it.live("counts a request as processed when it has its exit, until its replies are cleared", () =>
    Effect.gen(function*() {
      const found = yield* run(withStorage((storage) =>
        Effect.gen(function*() {
          const [ada, bob] = [request(Greet, 1, "Ada"), request(Greet, 2, "Bob")]
          yield* Effect.forEach([ada, bob], storage.saveRequest)
          yield* storage.saveReply(reply(Greet, end(11, 1, "hello")))
          const replies = storage.repliesFor([ada, bob]).pipe(Effect.map((all) => all.map(repliedWith)))
          const second = yield* Effect.exit(storage.saveReply(reply(Greet, end(12, 1, "hello again"))))
          const before = {
            replies: yield* replies,
            unfiltered: yield* storage.repliesForUnfiltered([idOf(1), idOf(2)]),
            waiting: yield* waiting(1)
          }
          const sql = yield* SqlClient.SqlClient
          const last = yield* sql`SELECT CAST(last_reply_id AS CHAR) AS last FROM shop_messages ORDER BY id`.values
          yield* storage.clearReplies(idOf(1))
          return { second: second._tag, last, before, after: [yield* replies, yield* waiting(1)] }
        })
      ))
      expect(found).toEqual({
        second: "Failure",
        last: [[text(11)], [null]],
        before: {
          replies: ["hello"],
          unfiltered: [{
            _tag: "WithExit",
            id: text(11),
            requestId: text(1),
            exit: { _tag: "Success", value: "hello" }
          }],
          waiting: [["Greet", text(2), { name: "Bob" }, null]]
        },
        after: [[], [["Greet", text(1), { name: "Ada" }, null]]]
      })
    }))

  it.live("holds a stream's request back while a chunk is not acknowledged", () =>
    Effect.gen(function*() {
      const found = yield* run(withStorage((storage) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const replies = sql`SELECT payload, sequence, acked FROM shop_replies ORDER BY id`.values
          yield* storage.saveRequest(request(Spell, 1, "ab"))
          yield* storage.saveReply(reply(Spell, chunk(11, 1, 0, "a")))
          const held = [yield* waiting(1), yield* replies]
          const ack = new Envelope.AckChunk({
            id: idOf(21),
            address: address(1),
            requestId: idOf(1),
            replyId: idOf(11)
          })
          yield* storage.saveEnvelope(new Message.OutgoingEnvelope({ envelope: ack, rpc: Spell as never }))
          const acknowledged = [yield* waiting(1), yield* replies]
          yield* storage.saveReply(reply(Spell, chunk(12, 1, 1, "b")))
          yield* storage.saveReply(reply(Spell, end(13, 1, undefined as never)))
          yield* storage.resetShards([shard(1)])
          return { held, acknowledged, ended: [yield* waiting(1), yield* replies] }
        })
      ))
      const sent = { _tag: "Chunk", id: text(11), requestId: text(1), sequence: 0, values: ["a"] }
      expect(found).toEqual({
        held: [[], [["[\"a\"]", 0, 0]]],
        acknowledged: [[["Spell", text(1), { name: "ab" }, sent], ["AckChunk", text(1)]], [["[\"a\"]", 0, 1]]],
        ended: [[], [["[\"a\"]", 0, 1], ["[\"b\"]", 1, 0], ["{\"_tag\":\"Success\"}", null, 0]]]
      })
    }))

  it.live("gives interrupts of what is not processed, and forgets an entity as a whole", () =>
    Effect.gen(function*() {
      const found = yield* run(withStorage((storage) =>
        Effect.gen(function*() {
          const other = address(1, "two")
          yield* storage.saveRequest(request(Greet, 1, "Ada"))
          yield* storage.saveRequest(request(Greet, 2, "Bob", other))
          yield* storage.saveEnvelope(
            Message.OutgoingEnvelope.interrupt({ address: address(1), id: idOf(21), requestId: idOf(1) })
          )
          const before = yield* waiting(1)
          yield* storage.clearAddress(address(1))
          yield* storage.resetShards([shard(1)])
          const sql = yield* SqlClient.SqlClient
          return [before, yield* waiting(1), yield* sql`SELECT entity_id FROM shop_messages`]
        })
      ))
      const bob = ["Greet", text(2), { name: "Bob" }, null]
      expect(found).toEqual([
        [["Greet", text(1), { name: "Ada" }, null], bob, ["Interrupt", text(1)]],
        [bob],
        [{ entity_id: "two" }]
      ])
    }))

  it.live("gives each message to one of several that read at once", () =>
    Effect.gen(function*() {
      const ids = Array.from({ length: 30 }, (_, at) => at)
      const found = yield* run(withStorage((storage) =>
        Effect.gen(function*() {
          yield* Effect.forEach(ids, (id) => storage.saveRequest(request(Greet, id, `${id}`)), { concurrency: 8 })
          const reads = yield* Effect.all(Array.from({ length: 6 }, () => waiting(1)), { concurrency: "unbounded" })
          return reads.flat().map(([, id]) => String(id)).sort()
        })
      ))
      expect(found).toEqual(ids.map(text).sort())
    }))
})
