'use strict';

const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { emulatorUrl } = require('./emulator');
const { checkNames, literal } = require('./name-limits');
const { defer, protect } = require('./protection');
const { settle } = require('./recovery');

const RETAINED = 'RetainExceptOnCreate';
// Set by `jobplane`, which builds the artifacts and finds the account itself.
const { JOBPLANE_BUILT: BUILT, JOBPLANE_ACCOUNT: ACCOUNT } = process.env;

/**
 * Deployments that can be repeated after any failure, both with `jobplane deploy` and with `osls
 * deploy`, and that never ship artifacts older than their sources.
 */
module.exports = class Deployments {
  constructor(serverless, options, { log }) {
    this.serverless = serverless;
    this.log = log;
    this.provider = serverless.getProvider('aws');
    this.hooks = {
      'before:package:createDeploymentArtifacts': () => this.build(),
      'after:aws:package:finalize:mergeCustomProviderResources': () => this.prepare(),
      'before:aws:deploy:deploy:createStack': () => this.recover(),
      'after:deploy:deploy': async () => protect(this.template, await this.config()),
      'before:deploy:function:initialize': () => this.build(options.function),
    };
  }

  get template() {
    return this.serverless.service.provider.compiledCloudFormationTemplate;
  }

  config() {
    return this.provider.getAwsSdkV3Config();
  }

  build(...names) {
    const [command] = this.serverless.processedInput.commands;
    if (BUILT || command !== 'deploy') return;
    const machine = this.serverless.service.provider.architecture;
    execFileSync('uv', ['run', '--quiet', 'jobplane', 'build', ...names, '--arch', machine], {
      cwd: path.resolve(__dirname, '..', '..'),
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }

  prepare() {
    checkNames(this.template, {
      service: this.serverless.service.service,
      stage: this.provider.getStage(),
      region: this.provider.getRegion(),
    });
    defer(this.template);
    takeBackWhatFailed(this.template);
    if (ACCOUNT) this.spellOutNames(ACCOUNT);
  }

  /** CloudFormation imports existing resources only by literal names. */
  spellOutNames(account) {
    const pseudo = { 'AWS::AccountId': account, 'AWS::Region': this.provider.getRegion() };
    for (const { Properties: properties } of retained(this.template)) {
      for (const [property, value] of Object.entries(properties)) {
        if (value['Fn::Join']) properties[property] = literal(value, pseudo) ?? value;
      }
    }
  }

  async recover() {
    await settle({
      config: await this.config(),
      stackName: this.provider.naming.getStackName(),
      stage: this.provider.getStage(),
      emulated: Boolean(emulatorUrl()),
      notice: (text) => this.log.notice(text),
    });
    if (retained(this.template).length === 0) return;
    if (!emulatorUrl()) this.spellOutNames(await this.provider.getAccountId());
    this.adoptRetained();
  }

  /** Import resources that an earlier stack of this stage left behind, with their data. */
  adoptRetained() {
    const deploy = this.serverless.pluginManager.plugins.find(
      ({ constructor: { name } }) => name === 'AwsDeploy'
    );
    const parameters = deploy.getCreateChangeSetParams;
    deploy.getCreateChangeSetParams = (...given) => ({
      ...parameters.apply(deploy, given),
      ImportExistingResources: true,
    });
  }
};

/**
 * A failed deployment deletes what it created, because the next one needs the names; `Retain` would
 * keep it. (The framework's versions of functions have no names.)
 */
const takeBackWhatFailed = ({ Resources: resources }) => {
  for (const resource of Object.values(resources)) {
    if (resource.DeletionPolicy === 'Retain' && resource.Type !== 'AWS::Lambda::Version') {
      resource.DeletionPolicy = RETAINED;
    }
  }
};

const retained = ({ Resources: resources }) =>
  Object.values(resources).filter(({ DeletionPolicy: policy }) => policy === RETAINED);
