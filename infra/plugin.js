'use strict';

// What osls cannot do by itself.
//
// In: serverless.yml. Out: one zip per function in .serverless/, a stage of its own for the API, a
// warning before a deployment that is open to everyone, and a refusal to remove the stack while a
// relay's stack exists.

const { createHash } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { CloudFormationClient, DescribeStacksCommand } = require('@aws-sdk/client-cloudformation'); // osls's own

class Plugin {
  constructor(serverless, options, { log, progress }) {
    this.serverless = serverless;
    this.log = log;
    this.progress = progress;
    this.hooks = {
      // The zips are built at this moment and in this folder. Earlier is too early, because osls
      // empties .serverless/ when it starts to package. In another folder osls would not compare
      // them with what is deployed, and would not skip an unchanged deployment.
      'before:package:createDeploymentArtifacts': () => this.zipFunctions(),
      'after:aws:package:finalize:mergeCustomProviderResources': () => this.bindApiStage(),
      'before:deploy:deploy': () => this.warn(),
      'before:remove:remove': () => this.refuseUnderRelays(),
    };
  }

  // zipFunctions builds the Go package that each function's handler names. Lambda itself ignores
  // handler, because it runs `bootstrap`.
  zipFunctions() {
    const { functions } = this.serverless.service;
    const names = Object.keys(functions);
    this.progress.get('main').notice('Building the functions');
    const result = spawnSync(
      'go',
      ['run', './infra/lambdazip', '-out', '.serverless', ...names.map((name) => `${name}=${functions[name].handler}`)],
      { cwd: this.serverless.serviceDir, stdio: ['ignore', 'inherit', 'inherit'] }
    );
    if (result.error || result.status !== 0) {
      const reason = result.error ? `go: ${result.error.message}` : 'see above';
      throw new this.serverless.classes.Error(`Building the functions failed: ${reason}`, 'GO_BUILD_FAILED');
    }
    for (const name of names) {
      // osls names the S3 object by the zip's basename, so two zips of one basename would be one
      // object for both functions.
      functions[name].package = { artifact: `.serverless/${name}.zip` };
    }
  }

  // bindApiStage gives the stage of infra/api.yml the deployment that osls generates.
  //
  // osls lets the deployment make the stage. The settings of such a stage, throttling among them,
  // cannot be changed afterwards ("StageDescription cannot be specified when stage referenced by
  // StageName already exists", https://github.com/awsdocs/aws-cloudformation-user-guide/pull/387).
  // So the deployment loses its stage name. osls takes the deployment's logical id from the clock.
  // The stage refers to that id, so every template would be a new one, and an unchanged deployment
  // would not be skipped. So the id becomes a hash of what is deployed.
  bindApiStage() {
    const resources = this.serverless.service.provider.compiledCloudFormationTemplate.Resources;
    const ofApi = Object.entries(resources).filter(([, { Type }]) => Type.startsWith('AWS::ApiGateway::'));
    const find = (type) => ofApi.find(([, { Type }]) => Type === `AWS::ApiGateway::${type}`);
    const [generatedId, deployment] = find('Deployment');
    const [, stage] = find('Stage');
    const content = ofApi.filter(([, resource]) => resource !== deployment && resource !== stage);
    const hash = createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16);

    delete deployment.Properties.StageName;
    // A deployment is a copy of the API at that moment, and osls waits only for the methods.
    deployment.DependsOn.push(...content.filter(([, { Type }]) => Type === 'AWS::ApiGateway::GatewayResponse').map(([id]) => id));
    delete resources[generatedId];
    resources[`ApiGatewayDeployment${hash}`] = deployment;
    stage.Properties.DeploymentId = { Ref: `ApiGatewayDeployment${hash}` };
  }

  // refuseUnderRelays ends `osls remove` while a relay's stack is there. It uses the database's security group and subnets, so the
  // main stack would lose its database first and then end in DELETE_FAILED.
  async refuseUnderRelays() {
    const provider = this.serverless.getProvider('aws');
    const client = new CloudFormationClient(await provider.getAwsSdkV3Config());
    for (const relay of ['walrelay', 'dms']) {
      const StackName = `${provider.naming.getStackName()}-${relay}`;
      try {
        await client.send(new DescribeStacksCommand({ StackName }));
      } catch (error) {
        if (error.message.includes('does not exist')) continue;
        throw error;
      }
      throw new this.serverless.classes.Error(
        `Stack ${StackName} still uses this one. To remove both: make remove STAGE=${provider.getStage()} REGION=${provider.getRegion()}`,
        'RELAY_EXISTS'
      );
    }
  }

  warn() {
    const { deployWarning, alarmEmail } = this.serverless.service.custom;
    if (deployWarning) this.log.warning(deployWarning);
    if (!alarmEmail) this.log.warning('No alarmEmail (params in serverless.yml): alarms change colour on the dashboard, and nobody is told.');
  }
}

module.exports = Plugin;
