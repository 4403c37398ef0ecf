import { defineConfig } from "vitest/config"

export default defineConfig({
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
      }
    ],
    coverage: {
      provider: "v8",
      include: ["src/**"],
      reportsDirectory: "coverage"
    }
  }
})
