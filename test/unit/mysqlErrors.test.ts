import { describe, expect, it } from "@effect/vitest"
import { connectFailure, endsConnection, idleLoss, statementFailure } from "../../src/internal/mysqlErrors.js"
import type { Flavour, MysqlError, Phase } from "../../src/internal/mysqlErrors.js"

const statement = "INSERT INTO t VALUES (?)"
const server = (errno: number, message = "no"): MysqlError => ({
  message,
  sqlMessage: message,
  errno,
  code: "ER_SOMETHING",
  sqlState: "HY000"
})
const failure = (error: MysqlError, phase: Phase = "sent", flavour: Flavour = "mariadb", readOnlyAsked = false) =>
  statementFailure(error, { flavour, phase, statement, readOnlyAsked })

const closedState: MysqlError = { message: "Can't add new command when connection is in closed state", fatal: true }
const brokenBySocket: ReadonlyArray<MysqlError> = [
  { message: "Connection lost: The server closed the connection.", code: "PROTOCOL_CONNECTION_LOST", fatal: true },
  { message: "read ECONNRESET", code: "ECONNRESET", errno: -104, fatal: true },
  { message: "write EPIPE", code: "EPIPE", errno: -32, fatal: true },
  { message: "read ETIMEDOUT", code: "ETIMEDOUT", errno: -110, fatal: true },
  { message: "Unexpected packet while no commands in the queue", code: "PROTOCOL_UNEXPECTED_PACKET", fatal: true },
  { message: "Query inactivity timeout", code: "PROTOCOL_SEQUENCE_TIMEOUT" },
  { message: "Warning: got packets out of order. Expected 1 but received 0" },
  { message: "Unexpected token", fatal: true }
]

describe("the refusals of a statement", () => {
  const both: ReadonlyArray<readonly [number, string]> = [
    [1062, "UniqueViolation"],
    [1586, "UniqueViolation"],
    [1022, "UniqueViolation"],
    [1048, "ConstraintError"],
    [1364, "ConstraintError"],
    [1451, "ConstraintError"],
    [1452, "ConstraintError"],
    [1213, "DeadlockError"],
    [1205, "LockTimeoutError"],
    [1614, "SerializationError"],
    [1317, "StatementCancelled"],
    [1064, "SqlSyntaxError"],
    [1054, "SqlSyntaxError"],
    [1146, "SqlSyntaxError"],
    [1305, "SqlSyntaxError"],
    [1142, "AuthorizationError"],
    [1143, "AuthorizationError"],
    [1044, "AuthorizationError"],
    [1227, "AuthorizationError"],
    [1370, "AuthorizationError"],
    [1792, "ReadOnlyError"],
    [1836, "ReadOnlyError"],
    [1406, "StatementError"],
    [1153, "StatementError"],
    [1461, "StatementError"],
    [1295, "StatementError"],
    [9999, "StatementError"]
  ]
  it.each(both)("%i is a %s on both servers", (errno, tag) => {
    expect(failure(server(errno), "sent", "mysql")._tag).toBe(tag)
    expect(failure(server(errno), "sent", "mariadb")._tag).toBe(tag)
  })

  const flavoured: ReadonlyArray<readonly [number, string, string]> = [
    [3024, "StatementTimeoutError", "StatementError"],
    [1969, "StatementError", "StatementTimeoutError"],
    [3819, "ConstraintError", "StatementError"],
    [4025, "StatementError", "ConstraintError"],
    [1020, "StatementError", "SerializationError"],
    [3101, "SerializationError", "StatementError"],
    [3058, "SerializationError", "StatementError"],
    [3572, "LockTimeoutError", "StatementError"],
    [4031, "ConnectionLost", "StatementError"]
  ]
  it.each(flavoured)("%i is a %s on MySQL and a %s on MariaDB", (errno, mysql, mariadb) => {
    expect(failure(server(errno), "sent", "mysql")._tag).toBe(mysql)
    expect(failure(server(errno), "sent", "mariadb")._tag).toBe(mariadb)
  })

  it("take 1290 for a read-only server only when it says so", () => {
    const option = (name: string) => server(1290, `The server is running with the ${name} option so it cannot`)
    expect(failure(option("--read-only"))._tag).toBe("ReadOnlyError")
    expect(failure(option("--super-read-only"))._tag).toBe("ReadOnlyError")
    expect(failure(option("--secure-file-priv"))._tag).toBe("StatementError")
  })

  it("do not take a transaction that was opened as READ ONLY for a failover", () => {
    expect(failure(server(1792), "sent", "mysql", true)._tag).toBe("StatementError")
    expect(failure(server(1836), "sent", "mysql", true)._tag).toBe("ReadOnlyError")
  })

  it("keep the server's facts and the statement's text", () => {
    expect(failure(server(1205, "Lock wait timeout exceeded"))).toMatchObject({
      statement,
      reason: "Lock wait timeout exceeded",
      errno: 1205,
      sqlState: "HY000"
    })
  })

  it("tell the one after which the server hangs up", () => {
    expect(endsConnection(failure(server(1153)))).toBe(true)
    expect(endsConnection(failure(server(1406)))).toBe(false)
  })
})

describe("a lost connection", () => {
  it.each(brokenBySocket.map((error) => [error.message, error] as const))(
    "has an unknown outcome once the statement was sent, and none before: %s",
    (_, error) => {
      expect(failure(error, "sent")).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown", isRetryable: false })
      expect(failure(error, "prepare")).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
      expect(failure(error, "unsent")).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
    }
  )

  it.each([1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2055, 3169])(
    "is what the server's %i means",
    (errno) => {
      expect(failure(server(errno), "sent")).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown", errno })
      expect(failure(server(errno), "prepare")).toMatchObject({ outcome: "not executed" })
    }
  )

  it("has executed nothing when the server or mysql2 says so", () => {
    const sure = [server(1047), server(9001), server(9002), closedState]
    for (const error of sure) {
      expect(failure(error, "sent")).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
    }
    expect(failure(server(4031), "sent", "mysql")).toMatchObject({ outcome: "not executed" })
  })

  it("has executed nothing when it broke while idle, whose code may be a number", () => {
    const error = idleLoss({ message: "The client was disconnected by the server", code: 4031, fatal: true })
    expect(error).toMatchObject({ outcome: "not executed", isRetryable: true, code: undefined })
  })
})

describe("a failed connect", () => {
  const target = "db:3306"
  const codes = (code: string, errno = -1): MysqlError => ({ message: `connect ${code}`, code, errno, fatal: true })

  it.each([1040, 1203, 1226, 1041, 1637, 1053, 3032, 3168, 9001])(
    "may be tried again after the server's %i",
    (errno) => {
      expect(connectFailure(server(errno), target)).toMatchObject({ _tag: "ConnectionError", isRetryable: true, errno })
    }
  )

  it.each([
    "ECONNREFUSED",
    "ETIMEDOUT",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNRESET",
    "EPIPE",
    "ENOENT"
  ])("may be tried again after %s", (code) => {
    expect(connectFailure(codes(code), target)).toMatchObject({ _tag: "ConnectionError", isRetryable: true, code })
  })

  it("may be tried again when the server went away in the middle", () => {
    expect(connectFailure({ message: "", code: "PROTOCOL_CONNECTION_LOST" }, target).isRetryable).toBe(true)
    expect(
      connectFailure({ message: "Client network socket disconnected before", code: "HANDSHAKE_SSL_ERROR" }, target)
        .isRetryable
    ).toBe(true)
    expect(connectFailure({ message: "read", errno: -104, code: "HANDSHAKE_SSL_ERROR" }, target).isRetryable).toBe(true)
  })

  it.each([1044, 1049, 1129, 1130, 3159, 1273, 1231])("is final after the server's %i", (errno) => {
    expect(connectFailure(server(errno), target)).toMatchObject({ _tag: "ConnectionError", isRetryable: false })
  })

  it.each(["HANDSHAKE_NO_SSL_SUPPORT", "HANDSHAKE_SSL_ERROR", "HANDSHAKE_UNKNOWN_ERROR"])(
    "is final after %s",
    (code) => {
      expect(connectFailure({ message: "self-signed certificate", code }, target).isRetryable).toBe(false)
    }
  )

  it.each([1045, 1251, 1524, 1698, 1820, 1862, 3118])("is one of authentication after the server's %i", (errno) => {
    expect(connectFailure(server(errno), target)).toMatchObject({
      _tag: "AuthenticationError",
      isRetryable: false,
      errno
    })
  })

  it("is one of authentication when the login plugin is unknown or forbidden", () => {
    for (const code of ["AUTH_SWITCH_PLUGIN_ERROR", "MYSQL_CLEAR_PASSWORD_NOT_ENABLED"]) {
      expect(connectFailure({ message: "plugin", code }, target)._tag).toBe("AuthenticationError")
    }
  })

  it("names a reason when every address of the name refused", () => {
    const error = { message: "", code: "ECONNREFUSED", errors: [{ message: "connect ECONNREFUSED ::1:3306" }] }
    expect(connectFailure(error, target).reason).toBe("connect ECONNREFUSED ::1:3306")
    expect(connectFailure({ message: "", code: "ECONNREFUSED" }, target).reason).toBe("ECONNREFUSED")
  })
})

describe("the reason", () => {
  const messages: ReadonlyArray<readonly [number, string]> = [
    [1062, "Duplicate entry 's3cr't' for key 'PRIMARY'"],
    [1586, "Duplicate entry 's3cr't' for key 'PRIMARY'"],
    [1366, "Incorrect integer value: 's3cr't' for column `test`.`t`.`a` at row 1"],
    [1292, "Truncated incorrect DOUBLE value: 's3cr't'"],
    [1292, "Incorrect datetime value: 's3cr't' for column 'a' at row 1"],
    [1411, "Incorrect datetime value: 's3cr't' for function str_to_date"],
    [1367, "Illegal double 's3cr't' value found during parsing"],
    [1690, "BIGINT UNSIGNED value is out of range in '(`test`.`t`.`a` - s3cr't)'"],
    [1526, "Table has no partition for value s3cr't"]
  ]
  it.each(messages)("of %i quotes no value: %s", (errno, message) => {
    const { reason } = failure(server(errno, message))
    expect(reason).not.toContain("s3cr")
    expect(reason.length).toBeGreaterThan(10)
  })

  it("keeps the names of keys and columns", () => {
    expect(failure(server(1062, "Duplicate entry 'x' for key 'users.email'")).reason).toBe(
      "Duplicate entry for key 'users.email'"
    )
    expect(failure(server(1366, "Incorrect integer value: 'x' for column 'a' at row 1")).reason).toBe(
      "Incorrect integer value for column 'a' at row 1"
    )
  })

  it.each<readonly [param: unknown, message: string, reason: string]>([
    ["s3cret value", "You have an error near ''s3cret value' at line 1", "You have an error near ''?' at line 1"],
    // as a server cuts it off, and as it stands in a text
    ["it's s3cret and long", "near ''it''s s3cret and' at line 1", "near ''?' at line 1"],
    ["abc", "Unknown or incorrect time zone: 'abc'", "Unknown or incorrect time zone: '?'"],
    ["abc", "Table 'abcdef' doesn't exist", "Table 'abcdef' doesn't exist"],
    [918273, "Unknown thread id: 918273", "Unknown thread id: ?"],
    [1, "Out of range at row 1", "Out of range at row 1"],
    [{ name: "s3cret" }, "near ''{\"name\":\"s3cret\"}'' at line 1", "near ''?'' at line 1"],
    [new TextEncoder().encode("s3cret"), "near 'x'733363726574'' at line 1", "near 'x'?'' at line 1"]
  ])("shows no parameter: %j in %s", (param, message, reason) => {
    const context = { flavour: "mariadb", phase: "sent", statement: "SELECT ?", params: [param] } as const
    expect(statementFailure(server(1105, message), context)).toMatchObject({ reason })
  })
})
