'use strict';

// The values of serverless.yml that have to be computed.

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

// alarmSubscriptions is empty without an address, because SNS refuses a subscription with an empty
// endpoint.
module.exports.alarmSubscriptions = async ({ resolveVariable }) => {
  const address = await resolveVariable('param:alarmEmail');
  return address ? [{ Protocol: 'email', Endpoint: address }] : [];
};

// zoneA and zoneB are the zones of the subnets. They are the two of parameter zones, or the
// region's first two. Not every zone has every class of database or of DMS instance.
const zone = (index) => async ({ resolveVariable }) => {
  const zones = String(await resolveVariable('param:zones')).split(',').map((name) => name.trim()).filter(Boolean);
  if (zones.length === 0) return { 'Fn::Select': [index, { 'Fn::GetAZs': '' }] };
  if (zones.length === 2 && zones[0] !== zones[1]) return zones[index];
  const error = new Error(`zones "${zones}": name two different ones, such as us-east-1a,us-east-1c`);
  error.stack = error.message;
  throw error;
};
module.exports.zoneA = zone(0);
module.exports.zoneB = zone(1);

// cors is the preflight that API Gateway answers by itself. Without an origin it answers none. An
// OPTIONS request then goes the way of any other, and the page learns that it may do nothing.
module.exports.cors = async ({ resolveVariable }) => {
  const origin = await resolveVariable('param:corsOrigin');
  if (!origin) return false;
  const headers = ['Authorization', 'Content-Type', 'Idempotency-Key', 'If-Match', 'X-Amz-Date', 'X-Amz-Security-Token', 'X-Api-Key', 'traceparent'];
  return { origin, headers, maxAge: 600 }; // s for which a browser need not ask again
};

// corsOfErrors lets a page of that origin read the answers that API Gateway makes by itself.
module.exports.corsOfErrors = async ({ resolveVariable }) => {
  const origin = await resolveVariable('param:corsOrigin');
  return origin ? { 'gatewayresponse.header.Access-Control-Allow-Origin': `'${origin}'` } : {};
};

// contractSchemas registers each file of contracts/ unchanged. A name is source@detail-type, like
// the names of schemas that EventBridge discovers. Without contractRegistry it registers none,
// because CloudFormation refuses a template with a type that the region lacks.
module.exports.contractSchemas = async ({ resolveVariable }) => {
  if (String(await resolveVariable('param:contractRegistry')) === 'false') return {};
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
  const EventContracts = {
    // Also prod does not keep it, because it holds copies of contracts/ and is made again with the
    // stack.
    Type: 'AWS::EventSchemas::Registry',
    Properties: {
      RegistryName: await resolveVariable('self:custom.stack'),
      Description: `The events on ${await resolveVariable('self:custom.stack')}-outbox. Their source is contracts/ in the repository.`,
    },
  };
  const schemas = readdirSync(folder).filter((file) => file.endsWith('.json')).sort().map(schema);
  return { EventContracts, ...Object.fromEntries(schemas) };
};

// stage refuses a stage that serverless.yml does not describe. Without this check osls would list
// every parameter that it misses.
module.exports.stage = async ({ options, resolveConfigurationProperty }) => {
  const stage = options.stage || 'dev';
  const known = Object.keys(await resolveConfigurationProperty(['params'])).filter((name) => name !== 'default');
  if (known.includes(stage)) return stage;
  const error = new Error(`stage "${stage}" is unknown: use ${known.join(' or ')}, or describe it under params in serverless.yml`);
  error.stack = error.message; // what osls prints
  throw error;
};
