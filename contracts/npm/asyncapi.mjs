// Checks an AsyncAPI document with the parser of AsyncAPI itself: node asyncapi.mjs FILE. It prints errors and warnings, and fails on either.
import { readFileSync } from 'node:fs';
import { DiagnosticSeverity, Parser } from '@asyncapi/parser';

const file = process.argv[2];
const { document, diagnostics } = await new Parser().parse(readFileSync(file, 'utf8'), { source: file });
const wrong = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning);
for (const { code, path, message } of wrong) console.error(`${file}: ${path.join('.')}: ${message} (${code})`);
if (!document || wrong.length > 0) process.exit(1);
