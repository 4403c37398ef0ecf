/**
 * What is known about the session of one connection: from the status of every reply, from the session tracker, and
 * from a statement's text for what neither reports (locks, `SELECT ... INTO @x`, `:=`).
 *
 * Text counts from the moment a statement is sent: one that fails half-way has changed the session all the same.
 *
 * @internal
 */
import type { Isolation, SessionState, Statement, TransactionSyntax } from "../Driver.js"
import { type RawOk, stateChanged, type StateChanges } from "./mysqlProtocol.js"
import type { StatementTraits } from "./sessionState.js"

const inTransaction = 1
const autocommit = 2
const noBackslashEscapes = 0x200

/** @internal The character set of every session that has just been set up. */
export const connectCharset = "utf8mb4"

/**
 * Which roles a session has; MySQL before 8 knows none. A reset leaves them as they are, at least on MariaDB, and nothing that
 * both servers know gives back those of the login.
 *
 * @internal
 */
export const askRole = "SELECT CONCAT_WS(',', '', /*!80000 CURRENT_ROLE(), */ /*M! CURRENT_ROLE(), */ NULL)"

const isolations: ReadonlyArray<Isolation> = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

/** @internal */
export const isIsolation = (text: string): text is Isolation => isolations.some((level) => level === text)

const nextIsolation = (level: Isolation): string => `SET TRANSACTION ISOLATION LEVEL ${level}`
const nextIsolations: ReadonlySet<string> = new Set(isolations.map(nextIsolation))

/** @internal */
export const quoteName = (name: string): string => `\`${name.replaceAll("`", "``")}\``

/** @internal */
export const transactionSyntax: TransactionSyntax = {
  begin: ({ isolation, readOnly }) => {
    const start = readOnly === true ? "START TRANSACTION READ ONLY" : "START TRANSACTION"
    if (isolation === undefined) return [start]
    return isIsolation(isolation) ? [nextIsolation(isolation), start] : undefined
  },
  commit: "COMMIT",
  rollback: "ROLLBACK",
  savepoint: (name) => `SAVEPOINT ${quoteName(name)}`,
  releaseSavepoint: (name) => `RELEASE SAVEPOINT ${quoteName(name)}`,
  rollbackTo: (name) => `ROLLBACK TO SAVEPOINT ${quoteName(name)}`
}

/** What the server's status flags say for sure, so that the text need not be asked. */
const isReported = (traits: StatementTraits): boolean => {
  if (traits.statements !== 1) return false
  switch (traits.verb) {
    case "BEGIN":
    case "START":
      return traits.transaction === "begin"
    case "SAVEPOINT":
    case "RELEASE":
      return true
    case "ROLLBACK":
      return traits.transaction === undefined
    default:
      return false
  }
}

const hasChanges = (changes: StateChanges): boolean =>
  changes.trackStateChange !== null || changes.schema !== null || Object.keys(changes.systemVariables).length > 0

/** @internal */
export class SessionTracker {
  private transaction = false
  private changed = false
  // SET TRANSACTION waits for the next transaction, and no server reports it.
  private isolationWaits = false
  private readOnly = false
  private database = false
  private profiled = false
  private backslashes = true
  private charset = connectCharset
  // An error packet says nothing of the session, and MariaDB forgets to say it later.
  private doubtful = false

  constructor(status: number) {
    this.statusReceived(status)
  }

  state(): SessionState {
    if (this.transaction) return "transaction"
    if (this.changed || this.isolationWaits) return "changed"
    return this.doubtful ? "unknown" : "clean"
  }

  /** The transaction was opened as READ ONLY by its own statement. */
  get readOnlyAsked(): boolean {
    return this.readOnly
  }

  /** The default database is another one, which a reset does not undo. */
  get databaseChanged(): boolean {
    return this.database
  }

  /** The server keeps the texts of statements for SHOW PROFILES, and a reset does not make it forget them. */
  get keepsProfiles(): boolean {
    return this.profiled
  }

  /** A text is read in the character set in which it is sent, and a backslash in a string escapes, as it does by default. */
  get readsPlainly(): boolean {
    return this.backslashes && this.charset === connectCharset
  }

  sending({ sql, traits }: Statement): void {
    if (nextIsolations.has(sql)) {
      this.isolationWaits = true
      return
    }
    if (traits.transaction === "begin") this.readOnly = /\bREAD\s+ONLY\b/i.test(sql)
    if (traits.verb === "USE") this.database = true
    if (traits.changesSession && /profiling/i.test(sql)) this.profiled = true
    // A procedure may do anything, and reports only its last statement.
    if (traits.verb === "CALL" || (traits.changesSession && !isReported(traits))) this.changed = true
  }

  okReceived({ traits }: Statement, ok: RawOk): void {
    this.statusReceived(ok.serverStatus)
    if (traits.transaction === "begin" && this.transaction) this.isolationWaits = false
    const changes = ok.stateChanges
    if (changes === undefined) return
    if (changes.schema !== null) this.database = true
    this.charset = changes.systemVariables["character_set_client"] ?? this.charset
    if (hasChanges(changes)) this.changed = true
  }

  /** A statement that may have begun to run was refused. */
  refused(): void {
    this.doubtful = true
  }

  rowsEnded(status: number): void {
    this.statusReceived(status)
    if ((status & stateChanged) !== 0) this.changed = true
  }

  wasReset(status: number): void {
    this.changed =
      this.isolationWaits =
      this.readOnly =
      this.database =
      this.doubtful =
        false
    this.charset = connectCharset
    this.statusReceived(status)
  }

  statusReceived(status: number): void {
    this.transaction = (status & inTransaction) !== 0
    this.backslashes = (status & noBackslashEscapes) === 0
    if (!this.transaction) this.readOnly = false
    if ((status & autocommit) === 0) this.changed = true
  }
}
