'use strict';

// Values of serverless.yml that have to be computed.

const { createHash } = require('node:crypto');
const { readFileSync, readdirSync } = require('node:fs');
const path = require('node:path');

// migrationsHash changes with every migration. CloudFormation calls the custom resource only when a property of it has changed.
module.exports.migrationsHash = () => {
  const folder = path.join(__dirname, '..', 'sql', 'migrations');
  const hash = createHash('sha256');
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.sql')).sort()) {
    const content = readFileSync(path.join(folder, name));
    hash.update(`${name}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
};

// alarmSubscriptions is empty without an address: SNS refuses a subscription with an empty endpoint.
module.exports.alarmSubscriptions = async ({ resolveVariable }) => {
  const address = await resolveVariable('param:alarmEmail');
  return address ? [{ Protocol: 'email', Endpoint: address }] : [];
};

// contractSchemas registers each file of contracts/ as it is. A name is source@detail-type, as schemas that EventBridge discovers
// have it.
module.exports.contractSchemas = () => {
  const folder = path.join(__dirname, '..', 'contracts');
  const schema = (file) => {
    const Content = readFileSync(path.join(folder, file), 'utf8');
    const contract = JSON.parse(Content);
    const Properties = {
      RegistryName: { 'Fn::GetAtt': ['EventContracts', 'RegistryName'] },
      SchemaName: `${contract['x-amazon-events-source']}@${contract['x-amazon-events-detail-type']}`,
      Type: 'JSONSchemaDraft4',
      Description: contract.description,
      Content,
    };
    return [`Contract${path.basename(file, '.json').replace(/[^A-Za-z0-9]/g, '')}`, { Type: 'AWS::EventSchemas::Schema', Properties }];
  };
  return Object.fromEntries(readdirSync(folder).filter((file) => file.endsWith('.json')).sort().map(schema));
};

// stage refuses one that serverless.yml does not describe. Without it osls lists every parameter that it misses.
module.exports.stage = async ({ options, resolveConfigurationProperty }) => {
  const stage = options.stage || 'dev';
  const known = Object.keys(await resolveConfigurationProperty(['params'])).filter((name) => name !== 'default');
  if (known.includes(stage)) return stage;
  const error = new Error(`stage "${stage}" is unknown: use ${known.join(' or ')}, or describe it under params in serverless.yml`);
  error.stack = error.message; // what osls prints
  throw error;
};
