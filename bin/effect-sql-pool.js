#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
import "../dist/internal/cli.js"
