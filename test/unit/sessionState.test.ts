import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { analyze } from "../../src/internal/sessionState.js"
import type { Dialect } from "../../src/internal/sqlText.js"

const mysql = (sql: string) => analyze(sql, "mysql")
const sqlite = (sql: string) => analyze(sql, "sqlite")

describe("an ordinary read", () => {
  it.each([
    "SELECT 1",
    "select * from users where id = ?",
    "SELECT u.id, COUNT(*), SUM(o.n) FROM u LEFT JOIN o ON (o.user_id = u.id) GROUP BY u.id HAVING COUNT(*) > (1)",
    "SELECT * FROM a JOIN b USING (id) STRAIGHT_JOIN (c, d) WHERE (a.x, b.y) IN ((1, 2), (3, 4))",
    "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), LAG(a, 1) OVER w FROM t WINDOW w AS (ORDER BY b)",
    "WITH c AS (SELECT 1 AS n) SELECT * FROM c",
    "WITH RECURSIVE c (n, m) AS (SELECT 1, 2 UNION ALL SELECT n, m FROM c), d (x) AS (SELECT 1) (SELECT * FROM c)",
    "SELECT doc->'$.a', doc->>'$.b', JSON_EXTRACT(doc, '$.c'), JSON_ARRAYAGG(x) FROM t",
    "SELECT jt.* FROM t, JSON_TABLE(t.doc, '$[*]' COLUMNS (id INT PATH '$.id', n VARCHAR(10) PATH '$.n')) AS jt",
    "SELECT NOW() - INTERVAL 1 DAY, DATE_ADD(d, INTERVAL (1 + 2) HOUR), TIMESTAMPDIFF(DAY, a, b) FROM t",
    "SELECT CASE WHEN (a) THEN (b) ELSE (c) END, IF(a, b, c), CAST(x AS CHAR(10)), CAST(x AS DATETIME(6)) FROM t",
    "SELECT CONVERT(x, DECIMAL(10,2)), CONVERT(x USING utf8mb4), EXTRACT(YEAR FROM d), TRIM(BOTH ' ' FROM s) FROM t",
    "SELECT * FROM t WHERE MATCH (a, b) AGAINST (? IN BOOLEAN MODE)",
    "SELECT * FROM t USE INDEX (i) IGNORE KEY FOR JOIN (j) PARTITION (p0) WHERE NOT (a AND (b OR (c)))",
    "SELECT * FROM t WHERE x > ANY (SELECT y FROM u) AND EXISTS (SELECT 1) AND z = ALL (SELECT 2)",
    "SELECT * FROM (SELECT a, b FROM t) AS d (x, y), LATERAL (SELECT d.x) l",
    "SELECT 1 FROM t1 UNION ALL (SELECT 2) EXCEPT (SELECT 3) LIMIT 10 OFFSET 5",
    "(SELECT 1) UNION (SELECT 2)",
    "SELECT 'GET_LOCK(', \"SET @x := 1\", `for update` FROM t",
    "SELECT 1 /* FOR UPDATE */ -- GET_LOCK('a', 1)\n",
    "SELECT 1 # INTO @x",
    "SELECT 'it\\'s; @x := 1', 'a''b;'",
    "SELECT t.into, t.lock FROM t",
    "SELECT /*! STRAIGHT_JOIN */ * FROM t",
    "SELECT /*+ SET_VAR(sort_buffer_size = 16M) */ 1",
    "SELECT SLEEP(1), UUID(), RAND(), CONNECTION_ID(), IS_FREE_LOCK('a'), BENCHMARK(10, MD5('a'))",
    "SELECT @@version, @@session.sql_mode",
    "SELECT GROUP_CONCAT(DISTINCT a ORDER BY b SEPARATOR ','), ST_Distance_Sphere(p, POINT(1, 2)) FROM t",
    "SELECT * FROM t FOR SYSTEM_TIME AS OF (NOW())",
    "SELECT 17 MEMBER OF('[23, 17]')",
    "SHOW TABLES",
    "SHOW CREATE TABLE t",
    "SHOW COLUMNS FROM warnings",
    "DESCRIBE users",
    "EXPLAIN SELECT * FROM t",
    "EXPLAIN FORMAT=TREE UPDATE t SET a = 1",
    "EXPLAIN ANALYZE SELECT * FROM t",
    "VALUES ROW(1, 2), ROW(3, 4)",
    "TABLE users",
    "SELECT 1;"
  ])("leaves nothing and may run twice: %s", (sql) => {
    expect(mysql(sql)).toMatchObject({ changesSession: false, plainRead: true, readsPrevious: false, statements: 1 })
  })

  it.each([
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t WHERE a = 1 FOR SHARE SKIP LOCKED",
    "SELECT * FROM t LOCK IN SHARE MODE",
    "SELECT * FROM t INTO OUTFILE '/tmp/x'",
    "SELECT @x",
    "EXPLAIN ANALYZE UPDATE t SET a = 1",
    "ANALYZE UPDATE t SET a = 1",
    "ANALYZE TABLE t"
  ])("may not run twice, but leaves nothing: %s", (sql) => {
    expect(mysql(sql)).toMatchObject({ changesSession: false, plainRead: false })
  })
})

describe("an ordinary write", () => {
  it.each([
    "INSERT INTO users (name, email) VALUES (?, ?), (?, ?)",
    "INSERT IGNORE INTO `shop`.`users`(`name`) VALUES (?)",
    "INSERT users (name) VALUE (?)",
    "INSERT LOW_PRIORITY IGNORE shop.users (name) VALUES (UPPER(?))",
    "INSERT INTO t (a, b) VALUES (1, 2) ON DUPLICATE KEY UPDATE b = VALUES(b), c = c + 1",
    "INSERT INTO t (a) VALUES (1) AS new(n) ON DUPLICATE KEY UPDATE a = new.n",
    "INSERT INTO t (id) VALUES (?) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
    "INSERT INTO t (a) SELECT b FROM u WHERE c IN (1, 2)",
    "INSERT INTO t PARTITION (p0) (a) VALUES (1)",
    "REPLACE INTO t (a) VALUES (1)",
    "REPLACE t (a) VALUES (1)",
    "INSERT INTO changes (a) VALUES (NOW(6))",
    "UPDATE t SET a = REPLACE(a, 'x', 'y'), d = JSON_SET(d, '$.a', ?) WHERE id IN (SELECT id FROM u)",
    "UPDATE seq SET id = LAST_INSERT_ID(id + 1)",
    "DELETE a FROM a JOIN b ON (a.id = b.id) WHERE b.t < NOW() - INTERVAL ? DAY",
    "WITH c (id) AS (SELECT 1) UPDATE t JOIN c USING (id) SET t.a = 1",
    "WITH c AS (SELECT 1) DELETE FROM t WHERE id IN (SELECT * FROM c)",
    "DO SLEEP(1)",
    "CREATE TABLE t (id INT, n VARCHAR(10), KEY k (n)) PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (5))",
    "ALTER TABLE t ADD COLUMN c DECIMAL(10, 2)",
    "DROP TABLE IF EXISTS t",
    "TRUNCATE TABLE t",
    "CREATE VIEW v AS SELECT fn(a) FROM t",
    "FLUSH PRIVILEGES",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND NO CHAIN NO RELEASE"
  ])("leaves nothing behind: %s", (sql) => {
    expect(mysql(sql)).toMatchObject({ changesSession: false, plainRead: false, readsPrevious: false, statements: 1 })
  })
})

describe("several statements", () => {
  it("are clean when each of them is, since the server tells of each; a plain read is only one", () => {
    expect(mysql("INSERT INTO t VALUES (1); SELECT * FROM t WHERE id = LAST_INSERT_ID()")).toMatchObject({
      changesSession: false,
      plainRead: false,
      statements: 2
    })
    expect(mysql("SELECT 1; SELECT 2")).toMatchObject({ changesSession: false, plainRead: false, statements: 2 })
  })
})

describe("a statement that may leave state behind", () => {
  it.each([
    "SELECT GET_LOCK('a', 1)",
    "select get_lock ('a', 1)",
    "SELECT get_lock/**/('a', 1)",
    "SELECT `get_lock`('a', 1)",
    "SELECT /*! GET_LOCK('a',1) */ 1",
    "SELECT /*!50000 GET_LOCK('a',1) */ 1",
    "SELECT 1 /*!99999 ' */, GET_LOCK('a', 1) -- '",
    "SELECT 1 AS `GET_LOCK(`, RELEASE_LOCK('a')",
    "SELECT 1 --GET_LOCK\n, RELEASE_ALL_LOCKS()",
    "DO GET_LOCK('a', 1)",
    "INSERT INTO t (a) VALUES (GET_LOCK('a', 1))",
    "UPDATE t SET a = 1 WHERE GET_LOCK('a', 1)",
    "WITH c AS (SELECT GET_LOCK('a', 1)) SELECT * FROM c",
    "SHOW TABLES WHERE GET_LOCK('a', 1)",
    "EXPLAIN SELECT GET_LOCK('a', 1)",
    "SELECT@x:=1",
    "SELECT @x := @x + 1 FROM t",
    "UPDATE t SET a = (@x := 5)",
    "SELECT 1 INTO @x",
    "SELECT a, b INTO x, y FROM t",
    "EXPLAIN FORMAT=JSON INTO @x SELECT 1",
    "SELECT fn(1)",
    "SELECT `mydb`.`fn`(1)",
    "SELECT mydb . abs (1)",
    "SELECT mydb.count(1)",
    "SELECT count (1)",
    "SELECT 1fn(2)",
    "SELECT mydb.1e5(2)",
    "SELECT lateral(1), filter(2)",
    "INSERT INTO t SELECT fn(1)",
    "INSERT INTO t (a) VALUES (fn(1))",
    "SELECT LAST_INSERT_ID(5)",
    "SELECT NEXTVAL(s)",
    "SELECT NEXT VALUE FOR s",
    "SET @x = 1",
    "SET NAMES utf8mb4",
    "SET autocommit = 0",
    "USE other",
    "CREATE TEMPORARY TABLE t (a INT)",
    "CREATE /*! TEMPORARY */ TABLE t (a INT)",
    "CREATE OR REPLACE TEMPORARY TABLE t (a INT)",
    "CREATE TABLE t AS SELECT fn(1)",
    "PREPARE s FROM 'SELECT 1'",
    "EXECUTE s",
    "DEALLOCATE PREPARE s",
    "HANDLER t OPEN",
    "CALL p()",
    "/*!99999 SELECT */ CALL p()",
    "LOCK TABLES t READ",
    "LOCK INSTANCE FOR BACKUP",
    "UNLOCK TABLES",
    "FLUSH TABLES WITH READ LOCK",
    "FLUSH TABLES t FOR EXPORT",
    "XA START 'x'",
    "BEGIN",
    "START TRANSACTION",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT AND CHAIN",
    "LOAD DATA INFILE 'x' INTO TABLE t (a, @b)",
    "BACKUP STAGE START",
    "GET DIAGNOSTICS @n = NUMBER",
    "SELECT 1; SET @a = 1",
    "SET @a = 1; SELECT 1",
    "CREATE PROCEDURE p() BEGIN SELECT 1; END; SET @x = 1",
    "WITH c AS (SELECT 1)",
    "nonsense",
    "'text'",
    "SELECT 'unterminated",
    "SELECT 1 /* unterminated",
    "SELECT 'C:\\', GET_LOCK('a',1), 'D:\\'"
  ])("is dirty, and no plain read: %s", (sql) => {
    expect(mysql(sql)).toMatchObject({ changesSession: true, plainRead: false })
  })
})

describe("a statement that reads what an earlier one left", () => {
  it.each([
    "SELECT LAST_INSERT_ID()",
    "select last_insert_id ( )",
    "SELECT `last_insert_id`()",
    "INSERT INTO t (a) VALUES (LAST_INSERT_ID())",
    "INSERT INTO t (a) VALUES (ROW_COUNT())",
    "UPDATE t SET a = 1 WHERE id = LAST_INSERT_ID()",
    "SELECT FOUND_ROWS()",
    "SELECT ROW_COUNT()",
    "SHOW WARNINGS LIMIT 5",
    "SHOW ERRORS",
    "SHOW COUNT(*) WARNINGS",
    "SELECT @@identity",
    "SELECT @@session . identity",
    "SELECT @@`last_insert_id`",
    "SELECT @@warning_count + @@local.error_count",
    "GET DIAGNOSTICS @n = NUMBER",
    "SELECT LASTVAL(s)",
    "SELECT PREVIOUS VALUE FOR s",
    "SELECT 1; SELECT LAST_INSERT_ID()"
  ])("is found: %s", (sql) => {
    expect(mysql(sql)).toMatchObject({ readsPrevious: true, plainRead: false })
  })

  it.each([
    "SELECT 'LAST_INSERT_ID()'",
    "SELECT last_insert_id FROM t",
    "SELECT identity, t.row_count FROM t",
    "INSERT INTO t (a) VALUES (1); SELECT * FROM t WHERE id = LAST_INSERT_ID()",
    "UPDATE t SET a = 1; SHOW WARNINGS"
  ])("is not seen where there is none, or where the text itself holds the earlier one: %s", (sql) => {
    expect(mysql(sql).readsPrevious).toBe(false)
  })
})

describe("statements and transactions", () => {
  it.each(
    [
      ["", 0],
      [" ;; -- x\n; /* y */", 0],
      ["SELECT 1", 1],
      ["SELECT ';'; ", 1],
      ["SELECT 1;; SELECT 2;", 2],
      ["CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END", 1],
      ["CREATE DEFINER=`a`@`%` TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET @a = 1; END;", 1],
      ["CREATE OR REPLACE FUNCTION f() RETURNS INT RETURN 1", 1],
      ["DROP PROCEDURE p; CREATE PROCEDURE p() BEGIN SELECT 1; END", 2],
      ["CREATE TABLE t (a INT); SELECT 1", 2],
      ["BEGIN NOT ATOMIC SELECT 1; SELECT 2; END", 1]
    ] as const
  )("%j has %i", (sql, statements) => {
    expect(mysql(sql)).toMatchObject({ statements, empty: statements === 0 })
  })

  it.each(
    [
      ["mysql", "BEGIN", "begin"],
      ["mysql", "begin work", "begin"],
      ["mysql", "/* x */ START TRANSACTION READ ONLY", "begin"],
      ["mysql", "XA START 'x'", "begin"],
      ["mysql", "COMMIT", "end"],
      ["mysql", "ROLLBACK WORK", "end"],
      ["mysql", "XA COMMIT 'x' ONE PHASE", "end"],
      ["mysql", "ROLLBACK TO SAVEPOINT a", undefined],
      ["mysql", "ROLLBACK WORK TO a", undefined],
      ["mysql", "BEGIN NOT ATOMIC SELECT 1; END", undefined],
      ["mysql", "START REPLICA", undefined],
      ["mysql", "SELECT 'COMMIT'", undefined],
      ["mysql", "BEGIN; UPDATE t SET a = 1; COMMIT", "end"],
      ["sqlite", "BEGIN IMMEDIATE", "begin"],
      ["sqlite", "END TRANSACTION", "end"],
      ["sqlite", "ROLLBACK TRANSACTION TO a", undefined]
    ] as const
  )("in %s, %j does %j to the transaction", (dialect, sql, transaction) => {
    expect(analyze(sql, dialect).transaction).toBe(transaction)
  })

  it("counts placeholders and finds names outside quotes only", () => {
    expect(mysql("SELECT ?, '?', `?`, ? /* ? */ -- ?\n")).toMatchObject({ placeholders: 2, named: false })
    expect(mysql("SELECT ':a', :b")).toMatchObject({ placeholders: 0, named: true })
    expect(mysql("SELECT '10:20'")).toMatchObject({ named: false })
  })

  it.each([
    ["SELECT 1", "SELECT"],
    ["  /* x */ -- y\n ((select 1))", "SELECT"],
    ["with c as (select 1) delete from t", "WITH"],
    ["/*!50003 CREATE*/ VIEW v AS SELECT 1", "CREATE"],
    ["", ""],
    ["?", ""]
  ])("the verb of %j is %j", (sql, verb) => {
    expect(mysql(sql).verb).toBe(verb)
  })
})

describe("in SQLite", () => {
  it.each([
    "SELECT * FROM t WHERE a GLOB 'x*' AND b LIKE '%' LIMIT 1",
    "SELECT [get_lock(1)], json_group_array(a) FILTER (WHERE a > 1) FROM t",
    "SELECT * FROM json_each(?), pragma_table_info('t')",
    "WITH c (a) AS NOT MATERIALIZED (SELECT 1) SELECT strftime('%s', 'now'), iif(a, 1, 2) FROM c",
    "EXPLAIN QUERY PLAN SELECT * FROM t",
    "PRAGMA table_info(users)",
    "PRAGMA main.journal_mode",
    "PRAGMA user_version",
    "VALUES (1, 2)"
  ])("leaves nothing and may run twice: %s", (sql) => {
    expect(sqlite(sql)).toMatchObject({ changesSession: false, plainRead: true, readsPrevious: false })
  })

  it.each([
    "INSERT INTO t (a) VALUES (?) ON CONFLICT (a) DO UPDATE SET (b, c) = (excluded.b, 1) RETURNING id",
    "INSERT OR REPLACE INTO changes (a) VALUES (datetime('now'))",
    "WITH c AS (SELECT 1 AS a) INSERT INTO t (a) SELECT a FROM c",
    "CREATE TABLE changes (id INTEGER PRIMARY KEY, a TEXT DEFAULT (datetime('now')))",
    "CREATE VIRTUAL TABLE f USING fts5(a, b)",
    "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1 END",
    "VACUUM",
    "COMMIT",
    "END"
  ])("leaves nothing behind: %s", (sql) => {
    expect(sqlite(sql)).toMatchObject({ changesSession: false, plainRead: false, readsPrevious: false })
  })

  it.each([
    "BEGIN",
    "SAVEPOINT a",
    "RELEASE a",
    "PRAGMA foreign_keys = ON",
    "PRAGMA foreign_keys(1)",
    "PRAGMA table_info = 1",
    "PRAGMA unheard_of",
    "EXPLAIN PRAGMA foreign_keys = ON",
    "EXPLAIN EXPLAIN SELECT 1",
    "ATTACH 'x' AS y",
    "DETACH y",
    "CREATE TEMP TABLE t (a)",
    "CREATE TEMPORARY VIEW v AS SELECT 1",
    "CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TABLE temp.t (a)",
    "CREATE TABLE \"temp\" . t (a)",
    "CREATE TABLE [TEMP].t (a)",
    "CREATE TABLE 'temp'.t (a)",
    "SELECT load_extension('x')",
    "SELECT my_function(1)",
    "SELECT \"abs\"(1)",
    "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; ATTACH 'x' AS y"
  ])("may leave state behind: %s", (sql) => {
    expect(sqlite(sql)).toMatchObject({ changesSession: true, plainRead: false })
  })

  it.each(["SELECT last_insert_rowid()", "SELECT changes()", "INSERT INTO t (a) VALUES (total_changes())"])(
    "reads what an earlier statement left: %s",
    (sql) => {
      expect(sqlite(sql).readsPrevious).toBe(true)
    }
  )

  it("counts a trigger's body as one statement", () => {
    expect(sqlite("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END").statements).toBe(1)
  })
})

describe("on any text", () => {
  const keywords = "SELECT INSERT INTO EXPLAIN WITH AS CREATE TABLE PROCEDURE BEGIN PRAGMA FOR SHOW GET_LOCK a 1".split(
    " "
  )
  const marks = "( ) , . ; ' \" ` [ /* /*! */ -- @x @@x := :a ? \n".split(" ")
  const fragment = fc.constantFrom(...keywords, ...marks)
  const text = fc.array(fc.oneof(fragment, fc.string({ maxLength: 3 })), { maxLength: 30 }).map((parts) =>
    parts.join(" ")
  )
  const dialects = fc.constantFrom<Dialect>("mysql", "sqlite")

  it("answers, and never calls a text plain that it calls dirty", () => {
    fc.assert(
      fc.property(text, dialects, (sql, dialect) => {
        const traits = analyze(sql, dialect)
        expect(traits.plainRead && (traits.changesSession || traits.readsPrevious || traits.statements !== 1)).toBe(
          false
        )
        expect(traits.empty && traits.statements > 0).toBe(false)
      }),
      { numRuns: 3000 }
    )
  })

  it("is not swayed by what stands in quotes or comments", () => {
    const escape = (content: string, quote: string, dialect: Dialect): string => {
      const escaped = dialect === "mysql" && quote !== "`" ? content.replaceAll("\\", "\\\\") : content
      return quote + escaped.replaceAll(quote, quote + quote) + quote
    }
    fc.assert(
      fc.property(text, dialects, fc.constantFrom("'", "\"", "`"), (content, dialect, quote) => {
        const plain = analyze("SELECT a, 'x' FROM t WHERE b = ?", dialect)
        expect(analyze(`SELECT a, ${escape(content, quote, dialect)} FROM t WHERE b = ?`, dialect)).toEqual(plain)
        const comment = content.replaceAll("*/", "")
        expect(analyze(`SELECT a, 'x' /* ${comment}*/ FROM t WHERE b = ?`, dialect)).toEqual(plain)
      }),
      { numRuns: 1000 }
    )
  })

  it.each(["(", "f(", ",f(", "a.", "EXPLAIN ", "((SELECT ", "/*!", "f(a) AS (", "'", ";", "CREATE ", "WITH a AS ("])(
    "takes time in proportion to its length: %j",
    (part) => {
      for (const dialect of ["mysql", "sqlite"] as const) {
        expect(analyze(part.repeat(200_000), dialect).placeholders).toBe(0)
      }
    }
  )
})

describe("whether a statement may end the transaction it runs in:", () => {
  it.each([
    "SELECT 1",
    "INSERT INTO t VALUES (1)",
    "WITH c AS (SELECT 1) SELECT * FROM c",
    "SELECT 1; UPDATE t SET a = 1; DELETE FROM t",
    "SAVEPOINT s",
    "RELEASE SAVEPOINT s",
    ""
  ])("never: %s", (sql) => {
    expect(mysql(sql).mayCommit).toBe("never")
  })

  it.each([
    "CREATE TABLE t (id INT)",
    "DROP TABLE t",
    "ANALYZE TABLE t",
    "SET autocommit = 1",
    "COMMIT",
    "BEGIN",
    "GRANT ALL ON t TO u",
    "of no kind that is known"
  ])("as the status after it tells: %s", (sql) => {
    expect(mysql(sql).mayCommit).toBe("seen")
  })

  it.each([
    "CALL p()",
    "EXECUTE s",
    "COMMIT; BEGIN",
    "SELECT 1; CREATE TABLE t (id INT)",
    "CREATE TABLE t (id INT); INSERT INTO t VALUES (1)",
    "SELECT 'never closed"
  ])("so that no status tells: %s", (sql) => {
    expect(mysql(sql).mayCommit).toBe("unseen")
  })
})

describe("the id that an INSERT generates", () => {
  it.each([
    ["INSERT INTO t VALUES (NULL); SELECT LAST_INSERT_ID()", { readsInsertId: false, readsOwnInsertId: true }],
    ["REPLACE INTO t VALUES (NULL); SELECT @@last_insert_id", { readsInsertId: false, readsOwnInsertId: true }],
    ["SELECT LAST_INSERT_ID(); INSERT INTO t VALUES (NULL)", { readsInsertId: true, readsOwnInsertId: false }],
    ["INSERT INTO t VALUES (LAST_INSERT_ID())", { readsInsertId: true, readsOwnInsertId: false }],
    ["INSERT INTO t VALUES (NULL); SELECT 1", { readsInsertId: false, readsOwnInsertId: false }]
  ])("is an earlier one's or the text's own: %s", (sql, traits) => {
    expect(mysql(sql)).toMatchObject(traits)
  })
})

describe("the cache", () => {
  it("answers a repeated text with the same traits, for each dialect its own", () => {
    const sql = "SELECT 'cached' # x"
    expect(mysql(sql)).toBe(mysql(sql))
    expect(mysql(sql)).not.toBe(sqlite(sql))
  })

  it("does not keep a text of more than 4096 characters", () => {
    const long = `SELECT '${"x".repeat(4096)}'`
    expect(mysql(long)).not.toBe(mysql(long))
    expect(mysql(long)).toEqual(mysql(long))
  })

  it("forgets the oldest text after a thousand others", () => {
    const first = mysql("SELECT 'first'")
    for (let i = 0; i < 999; i++) mysql(`SELECT 'other ${i}'`)
    expect(mysql("SELECT 'first'")).toBe(first)
    mysql("SELECT 'one more'")
    expect(mysql("SELECT 'first'")).not.toBe(first)
  })
})
