'use strict';

const os = require('node:os');
const { emulatorUrl } = require('./emulator');
const { logicalName, membersWithout } = require('./members');
const UserError = require('./user-error');

const join = (...parts) => ({ 'Fn::Join': ['', parts] });
const partition = { Ref: 'AWS::Partition' };
const region = { Ref: 'AWS::Region' };
const account = { Ref: 'AWS::AccountId' };
const domain = { Ref: 'AWS::URLSuffix' };

/** The parameters of the stage: `${param:X}` in function.yml and resources/*.yml. */
module.exports = async ({ options, resolveConfigurationProperty, resolveVariable }) => {
  const stage = await resolveVariable('sls:stage');
  const service = await resolveVariable('self:service');
  const stack = `${service}-${stage}`;
  const stages = await resolveConfigurationProperty(['custom', 'stages']);
  const emulator = emulatorUrl();
  const given = Object.fromEntries(
    (options.param || []).map((param) => param.split(/=(.*)/s).slice(0, 2))
  );
  const chosen = {
    ...stages.default,
    ...(emulator && { architecture: os.arch() === 'arm64' ? 'arm64' : 'x86_64' }),
    ...(emulator && stages.emulated),
    ...stages[stage],
    ...given,
  };
  // Bucket names are global: on AWS, account and region make them unique.
  const bucket = (name) =>
    emulator
      ? `${stack}-${name}`
      : join(`${stack}-${name}-`, account, '-', region);
  const jwtSecret = chosen.jwtSecret || `ssm:/${service}/${stage}/jwt-secret`;
  if (!/^ssm:(\/[A-Za-z0-9_.-]+)+$/.test(jwtSecret)) {
    throw new UserError(
      'jwtSecret must name an SSM parameter, as ssm:/path/name. Store the secret in that parameter: ' +
        'here it would be in the template and in the configuration of functions.'
    );
  }
  const loopback = /^http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:\d+)?\//;
  if (chosen.jwksUrl && !/^https:\/\/./.test(chosen.jwksUrl) && !(emulator && loopback.test(chosen.jwksUrl))) {
    throw new UserError('jwksUrl must be an https URL; a local stage also takes http on a loopback address.');
  }
  if (chosen.jwksUrl && !chosen.jwtIssuer) {
    throw new UserError('jwksUrl needs jwtIssuer: set it to the `iss` of the tokens.');
  }
  const lacking = chosen.jwksUrl || chosen.jwtKeySet ? membersWithout('jobplane-tokens', 'asymmetric') : [];
  if (lacking.length) {
    throw new UserError(
      'jwksUrl and jwtKeySet need cryptography in the functions that verify tokens. Add it once: ' +
        lacking
          .map((name) => `uv add --package ${name} 'jobplane-tokens[asymmetric]'`)
          .join(' && ')
    );
  }
  if (chosen.mailRuleSet && !/^[A-Za-z0-9]([\w.-]{0,62}[A-Za-z0-9])?$/.test(chosen.mailRuleSet)) {
    throw new UserError(
      'mailRuleSet must be the name of a receipt rule set of SES: 1 to 64 of A-Z a-z 0-9 . _ -'
    );
  }
  if (chosen.mailRuleSet && !chosen.mailDomains) {
    throw new UserError(
      'mailRuleSet needs mailDomains, without which all e-mails are refused: domain=tenant'
    );
  }
  const parameters = (path) =>
    join('arn:', partition, ':ssm:', region, ':', account, `:parameter${path}`);
  const connections = (method) =>
    join(
      'arn:', partition, ':execute-api:', region, ':', account, ':',
      { Ref: 'WebsocketsApi' }, `/${stage}/${method}/@connections/*`
    );
  return {
    ...chosen,
    jwtSecret,
    jwtSecretArn: parameters(jwtSecret.slice('ssm:'.length)),
    tablePrefix: `${stack}-`,
    metricsNamespace: logicalName(service),
    filesBucket: bucket('files'),
    inputBucket: bucket('input'),
    manifestBucket: bucket('manifests'),
    outputBucket: bucket('output'),
    quarantineBucket: bucket('quarantine'),
    websocketEndpoint: emulator
      ? join(`${emulator}/_aws/execute-api/`, { Ref: 'WebsocketsApi' }, `/${stage}`)
      : join('https://', { Ref: 'WebsocketsApi' }, '.execute-api.', region, '.', domain, `/${stage}`),
    postToConnectionsArn: connections('POST'),
    readConnectionsArn: connections('GET'),
    closeConnectionsArn: connections('DELETE'),
    sqsEndpoint: emulator || '',
    webhookSecretsArn: parameters(`/${service}/${stage}/webhooks/*`),
    httpCors: {
      allowedOrigins: [chosen.corsOrigin],
      allowedHeaders: ['authorization', 'content-type', 'idempotency-key', 'if-none-match'],
      allowedMethods: ['GET', 'POST', 'DELETE', 'OPTIONS'],
      exposedResponseHeaders: ['etag', 'retry-after'],
      maxAge: 3600,
    },
  };
};
