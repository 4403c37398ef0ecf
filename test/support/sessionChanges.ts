/**
 * What a borrower can do to its session, and what of it another could see: a catalogue of statements, and a fingerprint of a
 * session that is the same for every pristine one.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Queries } from "../../src/Queries.js"
import type { Flavour } from "./serverProgram.js"

/** The tables that the statements need; to be made by root in the fixture's database. */
export const schema = (database: string): ReadonlyArray<string> => [
  `CREATE TABLE ${database}.items (id INT AUTO_INCREMENT PRIMARY KEY, mark VARCHAR(20)) ENGINE = InnoDB`,
  `INSERT INTO ${database}.items (mark) VALUES ('base')`,
  `CREATE TABLE ${database}.numbered (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB AUTO_INCREMENT = 500`,
  `CREATE TABLE ${database}.uncommitted (a INT) ENGINE = InnoDB`,
  `CREATE TABLE ${database}.written (a INT) ENGINE = InnoDB`,
  `INSERT INTO ${database}.written VALUES (0)`,
  `CREATE FUNCTION ${database}.marking (a INT) RETURNS INT DETERMINISTIC BEGIN SET @by_function = a; RETURN a; END`,
  `CREATE PROCEDURE ${database}.upset () BEGIN SET @by_procedure = 1; SET SESSION sort_buffer_size = 400000; `
  + `CREATE TEMPORARY TABLE IF NOT EXISTS made (a INT); SELECT 1; SELECT 2; END`,
  `CREATE PROCEDURE ${database}.half () BEGIN START TRANSACTION; UPDATE written SET a = 9; SELECT * FROM nowhere; END`,
  `CREATE VIEW ${database}.marks AS SELECT ${database}.marking(5) AS a`,
  `CREATE TRIGGER ${database}.remembers BEFORE INSERT ON ${database}.written FOR EACH ROW SET @by_trigger = NEW.a`
]

const both: ReadonlyArray<string> = [
  // variables
  "SET @a = 1, @b = 'x'",
  "SET @`odd name` := 7",
  "SELECT @c := 3",
  "SELECT mark INTO @d FROM items LIMIT 1",
  "SELECT 1, 2 INTO @e, @f",
  "DO @g := 4",
  "INSERT INTO written VALUES (@h := 5)",
  "SELECT marking(8)",
  "INSERT INTO written VALUES (6)",
  // settings
  "SET sql_mode = 'ANSI_QUOTES'",
  "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'",
  "SET @@sql_mode = ''",
  "SET @@session.time_zone = '+03:00', @@lock_wait_timeout = 1",
  "SET time_zone = 'SYSTEM'",
  "SET LOCAL group_concat_max_len = 77",
  "SET max_sort_length = 64, foreign_key_checks = 0, unique_checks = 0",
  "SET sql_safe_updates = 1, sql_select_limit = 1",
  "SET timestamp = 1000",
  "SET insert_id = 77",
  "SET auto_increment_increment = 10",
  "SET div_precision_increment = 2, lc_time_names = 'de_DE'",
  "SET session_track_schema = OFF, session_track_state_change = OFF",
  "SET session_track_system_variables = ''",
  // character sets
  "SET NAMES latin1",
  "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
  "SET CHARACTER SET latin1",
  "SET character_set_results = NULL",
  "SET collation_connection = 'utf8mb4_general_ci'",
  // the default database
  "USE information_schema",
  "USE information_schema; SELECT 1",
  // temporary tables
  "CREATE TEMPORARY TABLE items (id INT, mark VARCHAR(20))",
  "CREATE TEMPORARY TABLE made (a INT) ENGINE = InnoDB",
  "CREATE TEMPORARY TABLE made SELECT 1 AS a",
  "CREATE TEMPORARY TABLE IF NOT EXISTS made LIKE written",
  // locks
  "SELECT GET_LOCK('mine', 0)",
  "SELECT GET_LOCK('mine', 0), GET_LOCK('yours', 0)",
  "DO GET_LOCK('yours', 0)",
  "LOCK TABLES items READ",
  "LOCK TABLES items WRITE, written AS w READ",
  "FLUSH TABLES WITH READ LOCK",
  "FLUSH TABLES items WITH READ LOCK",
  "HANDLER items OPEN",
  "HANDLER items OPEN AS h",
  // prepared statements
  "PREPARE kept FROM 'SELECT 1'",
  "PREPARE kept FROM 'SELECT @by_prepared := ?'",
  "EXECUTE kept",
  "SET @n = 2; PREPARE kept FROM 'SELECT ? INTO @by_execute'; EXECUTE kept USING @n",
  // transactions
  "BEGIN",
  "START TRANSACTION READ ONLY",
  "START TRANSACTION WITH CONSISTENT SNAPSHOT",
  "UPDATE written SET a = a + 1",
  "DELETE FROM items WHERE id > 1",
  "SAVEPOINT here",
  "ROLLBACK TO here",
  "SELECT * FROM items FOR UPDATE",
  "SET autocommit = 0",
  "SET autocommit = 0; INSERT INTO written VALUES (7)",
  "BEGIN; INSERT INTO written VALUES (8)",
  "COMMIT AND CHAIN",
  "ROLLBACK AND CHAIN",
  "COMMIT",
  "ROLLBACK RELEASE",
  "XA START 'far'",
  "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
  "SET TRANSACTION READ ONLY",
  "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
  "SET SESSION TRANSACTION READ ONLY",
  "SET completion_type = 'CHAIN'",
  // what the session remembers of statements
  "SELECT LAST_INSERT_ID(42)",
  "UPDATE written SET a = LAST_INSERT_ID(43)",
  "INSERT INTO numbered VALUES (NULL)",
  "SELECT SQL_CALC_FOUND_ROWS * FROM items LIMIT 0",
  "SET profiling = 1; SELECT 'a secret'",
  "SET ROLE reader",
  // programs
  "CALL upset()",
  "CALL half()",
  // what is refused, and what leaves nothing
  "SELECT nonsense",
  "SELECT GET_LOCK('mine', 0), nonsense",
  "INSERT INTO items VALUES (1, 'twice')",
  "BEGIN; SET @half = 1; SELECT nonsense",
  "SET @fine = 1, no_such_variable = 2",
  "this is no SQL",
  "SELECT 1",
  "SELECT COUNT(*) FROM items"
]

const mariadb: ReadonlyArray<string> = [
  // not on MySQL: it reports with no rows what a function has changed, and the text shows none
  "SELECT a FROM marks",
  "SET STATEMENT max_statement_time = 5 FOR SELECT @by_statement := 1",
  "SET max_statement_time = 5",
  "BEGIN NOT ATOMIC SET @by_block = 1; END",
  "EXECUTE IMMEDIATE 'SET @immediate = 1'",
  "BACKUP LOCK items",
  "SELECT NEXTVAL(counted)",
  "SET SESSION check_constraint_checks = 0"
]

const mysql: ReadonlyArray<string> = [
  "SET max_execution_time = 5000",
  "LOCK INSTANCE FOR BACKUP",
  "SET SESSION sql_require_primary_key = 1"
]

export const changes = (
  flavour: Flavour
): ReadonlyArray<string> => [...both, ...flavour === "mariadb" ? mariadb : mysql]

/** Those after which others would have to wait. */
export const blocking = /LOCK|HANDLER|^CALL half|UPDATE|DELETE|FOR UPDATE|XA|CHAIN|INSERT|autocommit|BEGIN|TRANSACTION/i

// differ from one pristine session to the next, and what only statements tell that are not run on another's connection
const volatile = new Set(
  ("timestamp pseudo_thread_id last_insert_id identity rand_seed1 rand_seed2 warning_count error_count last_gtid "
    + "statement_id gtid_seq_no").split(" ")
)

export type Fingerprint = Readonly<Record<string, unknown>>

const userVariables: Record<Flavour, string> = {
  mariadb: "SELECT VARIABLE_NAME FROM information_schema.USER_VARIABLES ORDER BY 1",
  mysql: "SELECT VARIABLE_NAME FROM performance_schema.user_variables_by_thread"
    + " WHERE THREAD_ID = PS_CURRENT_THREAD_ID() ORDER BY 1"
}

/** What is seen, or the number or kind of the error. */
const seen = (queries: Queries, sql: string): Effect.Effect<unknown> =>
  Effect.map(Effect.either(queries.values(sql)), (rows) => {
    if (Either.isRight(rows)) return JSON.stringify(rows.right)
    return "errno" in rows.left && rows.left.errno !== undefined ? rows.left.errno : rows.left._tag
  })

/**
 * What a borrower sees of its session, in this order. What only the next transaction would show comes first: whether it
 * reads what is not committed, or whether it may write.
 */
export const fingerprint = (
  queries: Queries,
  options: { readonly flavour: Flavour; readonly database: string; readonly first: "reads" | "writes" }
): Effect.Effect<Fingerprint> =>
  Effect.gen(function*() {
    const { database, first, flavour } = options
    const facts: Record<string, unknown> = {}
    const ask = (name: string, sql: string) =>
      Effect.map(seen(queries, sql), (value) => {
        facts[name] = value
      })
    const transaction = [
      ask("uncommitted rows", `SELECT COUNT(*) FROM ${database}.uncommitted`),
      ask("may write", `UPDATE ${database}.items SET mark = mark WHERE id = -1`)
    ]
    yield* Effect.all(first === "reads" ? transaction : [...transaction].reverse(), { discard: true })
    yield* ask("user variables", userVariables[flavour])
    yield* ask("database", "SELECT DATABASE()")
    yield* ask("role", "SELECT CURRENT_ROLE()")
    yield* ask("locks", "SELECT IS_USED_LOCK('mine'), IS_USED_LOCK('yours')")
    yield* ask("items", "SELECT mark FROM items WHERE id = 1")
    yield* ask("now", "SELECT UNIX_TIMESTAMP() > 1500000000")
    yield* ask("backslash", "SELECT '\\\\'")
    yield* ask("profiles", "SHOW PROFILES")
    yield* ask("initial", "SELECT @initial")
    const variables = yield* Effect.orDie(queries.values<[string, unknown]>("SHOW SESSION VARIABLES"))
    for (const [name, value] of variables) if (!volatile.has(name)) facts[name] = value
    yield* ask("last insert id", "SELECT LAST_INSERT_ID()")
    yield* ask("found rows", "SELECT FOUND_ROWS()")
    yield* ask("temporary table", "SELECT * FROM made")
    yield* ask("prepared", "EXECUTE kept")
    yield* ask("handler", "HANDLER items READ FIRST")
    yield* ask("handler with an alias", "HANDLER h READ FIRST")
    return facts
  })
