/**
 * An authority and certificates for a test that lives a minute, made by Node alone: X.509 v3 (RFC 5280) in DER, on P-256
 * keys. Nothing of it is for use.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto"

export interface Certificate {
  /** PEM. */
  readonly certificate: string
  /** PEM, PKCS #8. */
  readonly key: string
}

export interface Authority extends Certificate {
  readonly issue: (options: CertificateOptions) => Certificate
}

export interface CertificateOptions {
  /** What a client knows the server by. */
  readonly dnsName: string
  /** By default from yesterday to tomorrow. */
  readonly notBefore?: Date | undefined
  readonly notAfter?: Date | undefined
}

// --- DER -------------------------------------------------------------------------------------------------------------

const lengthOf = (size: number): Buffer => {
  if (size < 0x80) return Buffer.of(size)
  return size < 0x100 ? Buffer.of(0x81, size) : Buffer.of(0x82, size >> 8, size & 0xff)
}

const tagged = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(tag), lengthOf(body.length), body])
}

const sequence = (...parts: ReadonlyArray<Uint8Array>): Buffer => tagged(0x30, ...parts)
const octets = (bytes: Uint8Array): Buffer => tagged(0x04, bytes)
const bits = (bytes: Uint8Array): Buffer => tagged(0x03, Buffer.of(0), bytes)
const yes = tagged(0x01, Buffer.of(0xff))
const identifier = (hex: string): Buffer => tagged(0x06, Buffer.from(hex, "hex"))

const commonName = identifier("550403")
const subjectAlternativeName = identifier("551d11")
const basicConstraints = identifier("551d13")
const ecdsaWithSha256 = sequence(identifier("2a8648ce3d040302"))

const nameOf = (text: string): Buffer =>
  sequence(tagged(0x31, sequence(commonName, tagged(0x0c, Buffer.from(text, "utf8")))))

/** UTCTime, which reaches to 2049. */
const timeOf = (date: Date): Buffer =>
  tagged(0x17, Buffer.from(`${date.toISOString().slice(2, 19).replaceAll(/[-:T]/g, "")}Z`, "ascii"))

const pem = (label: string, der: Buffer): string =>
  `-----BEGIN ${label}-----\n${der.toString("base64").replaceAll(/.{1,64}/g, "$&\n")}-----END ${label}-----\n`

// --- certificates ----------------------------------------------------------------------------------------------------

interface Content {
  readonly subject: string
  readonly issuer: string
  readonly signer: KeyObject
  readonly keys: { readonly publicKey: KeyObject; readonly privateKey: KeyObject }
  readonly notBefore?: Date | undefined
  readonly notAfter?: Date | undefined
  readonly extensions: ReadonlyArray<Buffer>
}

const day = 86_400_000

const certificateOf = (content: Content): Certificate => {
  const { extensions, issuer, keys, signer, subject } = content
  const { notAfter = new Date(Date.now() + day), notBefore = new Date(Date.now() - day) } = content
  const serial = Buffer.concat([Buffer.of(1), randomBytes(8)])
  const body = sequence(
    tagged(0xa0, tagged(0x02, Buffer.of(2))),
    tagged(0x02, serial),
    ecdsaWithSha256,
    nameOf(issuer),
    sequence(timeOf(notBefore), timeOf(notAfter)),
    nameOf(subject),
    keys.publicKey.export({ type: "spki", format: "der" }),
    tagged(0xa3, sequence(...extensions))
  )
  return {
    certificate: pem("CERTIFICATE", sequence(body, ecdsaWithSha256, bits(sign("sha256", body, signer)))),
    key: keys.privateKey.export({ type: "pkcs8", format: "pem" }).toString()
  }
}

const newKeys = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" })

export const makeAuthority = (name: string): Authority => {
  const keys = newKeys()
  const own = certificateOf({
    subject: name,
    issuer: name,
    signer: keys.privateKey,
    keys,
    extensions: [sequence(basicConstraints, yes, octets(sequence(yes)))]
  })
  return {
    ...own,
    issue: ({ dnsName, notAfter, notBefore }) =>
      certificateOf({
        subject: dnsName,
        issuer: name,
        signer: keys.privateKey,
        keys: newKeys(),
        notBefore,
        notAfter,
        extensions: [sequence(subjectAlternativeName, octets(sequence(tagged(0x82, Buffer.from(dnsName, "ascii")))))]
      })
  }
}
