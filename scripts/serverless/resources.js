'use strict';

const alarmsOf = require('./alarms');
const dashboardOf = require('./dashboard');
const domainsOf = require('./domains');
const { acceptEmails, calledByItsApiAlone, refusePlainHttp } = require('./guards');
const { deployedName, fragments, members, roleOf } = require('./members');
const UserError = require('./user-error');

const list = (value) => (Array.isArray(value) ? value : [value]);

const logGroup = (name) => ({
  'Fn::Join': [
    ':',
    [
      'arn',
      { Ref: 'AWS::Partition' },
      'logs',
      { Ref: 'AWS::Region' },
      { Ref: 'AWS::AccountId' },
      `log-group:/aws/lambda/${deployedName(name)}`,
      '*',
    ],
  ],
});

const role = (name, statements) => ({
  Type: 'AWS::IAM::Role',
  Properties: {
    // `osls deploy function` finds a role by its name; roles are global, so it has the region.
    RoleName: `${deployedName(name)}-\${aws:region}`,
    AssumeRolePolicyDocument: {
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Principal: { Service: ['lambda.amazonaws.com'] },
          Action: ['sts:AssumeRole'],
        },
      ],
    },
    Policies: [
      {
        PolicyName: name,
        PolicyDocument: {
          Version: '2012-10-17',
          Statement: [
            ...statements.map((statement) => ({
              ...statement,
              Action: list(statement.Action),
              Resource: list(statement.Resource),
            })),
            {
              Effect: 'Allow',
              Action: ['logs:CreateLogStream', 'logs:PutLogEvents'],
              Resource: [logGroup(name)],
            },
            {
              Effect: 'Allow',
              Action: ['xray:PutTraceSegments', 'xray:PutTelemetryRecords'],
              Resource: ['*'],
            },
          ],
        },
      },
    ],
  },
});

/** The statement to decrypt parameters that are encrypted with the account's own key. */
const decryption = (statements, key) => {
  if (!key) return [];
  if (!/^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key\/.+$/.test(key)) {
    throw new UserError(
      'parametersKeyArn must be the ARN of a KMS key, …:key/…: IAM does not accept an alias'
    );
  }
  return statements
    .filter(({ Action: actions }) => list(actions).includes('ssm:GetParameter'))
    .map(({ Resource: resources }) => ({
      Effect: 'Allow',
      Action: 'kms:Decrypt',
      Resource: key,
      Condition: { StringLike: { 'kms:EncryptionContext:PARAMETER_ARN': list(resources) } },
    }));
};

const ofType = (resources, type) =>
  Object.fromEntries(Object.entries(resources).filter(([, resource]) => resource.Type === type));

/**
 * resources/*.yml, a role for each function with its own statements, its log group and X-Ray, the
 * guards of guards.js, and the stage's alarms and dashboard.
 */
module.exports = async ({ resolveVariable }) => {
  const template = { Resources: {}, Outputs: {}, Conditions: {}, Mappings: {}, extensions: {} };
  for (const fragment of fragments()) {
    for (const [section, entries] of Object.entries(fragment)) {
      for (const [id, entry] of Object.entries(entries || {})) {
        if (template[section][id]) throw new UserError(`${section}.${id} is in two files of resources/`);
        template[section][id] = entry;
      }
    }
  }
  const functions = members();
  const key = await resolveVariable('param:parametersKeyArn');
  for (const [name, { iamRoleStatements: statements = [] }] of Object.entries(functions)) {
    template.Resources[roleOf(name)] = role(name, [...statements, ...decryption(statements, key)]);
  }
  const given = {};
  for (const name of ['httpDomain', 'httpCertificate', 'socketDomain', 'socketCertificate']) {
    given[name] = await resolveVariable(`param:${name}`);
  }
  const domains = domainsOf(given);
  Object.assign(template.Resources, domains.Resources);
  Object.assign(template.Outputs, domains.Outputs);
  const on = async (param) => String(await resolveVariable(`param:${param}`)) === 'true';
  Object.assign(template.extensions, calledByItsApiAlone(functions));
  const ruleSet = await resolveVariable('param:mailRuleSet');
  if (ruleSet && functions.intake) acceptEmails(template.Resources, ruleSet);
  if (await on('tlsOnly')) refusePlainHttp(template.Resources);
  const stack = {
    functions,
    tables: ofType(template.Resources, 'AWS::DynamoDB::Table'),
    queues: ofType(template.Resources, 'AWS::SQS::Queue'),
    stateMachines: ofType(template.Resources, 'AWS::StepFunctions::StateMachine'),
    schedules: await on('schedules'),
    alarmMail: await resolveVariable('param:alarmMail'),
    alarms: [],
  };
  if (await on('alarms')) {
    const alarms = alarmsOf(stack);
    Object.assign(template.Resources, alarms);
    stack.alarms = Object.keys(ofType(alarms, 'AWS::CloudWatch::Alarm'));
  }
  if (await on('dashboard')) Object.assign(template.Resources, dashboardOf(stack));
  return Object.fromEntries(
    Object.entries(template).filter(([, entries]) => Object.keys(entries).length > 0)
  );
};
