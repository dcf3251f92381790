'use strict';

const { deployedName, fragments, members, roleOf } = require('./members');

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
    // `osls deploy function` finds a role by its name; roles are global, so the region is in it.
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

/** resources/*.yml, and one role a function with its own statements, its log group and X-Ray. */
module.exports = () => {
  const template = { Resources: {}, Outputs: {}, Conditions: {}, Mappings: {} };
  for (const fragment of fragments()) {
    for (const [section, entries] of Object.entries(fragment)) {
      for (const [id, entry] of Object.entries(entries || {})) {
        if (template[section][id]) throw new Error(`${section}.${id} is in two files of resources/`);
        template[section][id] = entry;
      }
    }
  }
  for (const [name, config] of Object.entries(members())) {
    template.Resources[roleOf(name)] = role(name, config.iamRoleStatements || []);
  }
  return Object.fromEntries(
    Object.entries(template).filter(([, entries]) => Object.keys(entries).length > 0)
  );
};
