import { defineConfig } from "vitest/config"

const config = defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"]
        }
      },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          globalSetup: "test/support/serverGlobalSetup.ts",
          testTimeout: 30_000,
          hookTimeout: 60_000
        }
      },
      {
        test: {
          name: "fault",
          include: ["test/fault/**/*.test.ts"],
          globalSetup: "test/support/serverGlobalSetup.ts",
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // One file at a time: these freeze and kill servers and measure deadlines.
          poolOptions: { forks: { singleFork: true } }
        }
      },
      {
        test: {
          name: "package",
          include: ["test/package/**/*.test.ts"],
          // each compiles all of Effect's declarations
          testTimeout: 120_000
        }
      }
    ],
    coverage: {
      provider: "v8",
      include: ["src/**"],
      reportsDirectory: "coverage"
    }
  }
})

export default defineConfig(({ mode }) => {
  // The workers inherit it; see flavourOfRun in test/support/serverProgram.ts.
  if (mode === "mysql") process.env["DB_TEST_FLAVOUR"] = "mysql"
  return config
})
