'use strict';

const { hasTrigger, normalized } = require('./members');

const join = (...parts) => ({ 'Fn::Join': ['', parts] });
const arn = (id) => ({ 'Fn::GetAtt': [id, 'Arn'] });

/**
 * Every bucket and queue refuses requests without TLS, from all callers. A queue has one policy,
 * so the statement is added to the one in resources/, if there is one.
 */
exports.refusePlainHttp = (resources) => {
  for (const [id, { Type: type }] of Object.entries(resources)) {
    if (type === 'AWS::S3::Bucket') {
      resources[`${id}Policy`] = {
        Type: 'AWS::S3::BucketPolicy',
        Properties: {
          Bucket: { Ref: id },
          PolicyDocument: document(refusal('s3:*', [arn(id), join(arn(id), '/*')])),
        },
      };
    } else if (type === 'AWS::SQS::Queue') {
      const policy = policyOf(id, resources) || {
        Type: 'AWS::SQS::QueuePolicy',
        Properties: { Queues: [{ Ref: id }], PolicyDocument: document() },
      };
      policy.Properties.PolicyDocument.Statement.push(refusal('sqs:*', arn(id)));
      resources[`${id}Policy`] = policy;
    }
  }
};

/**
 * Without a source, API Gateway may invoke a function for an API of any account. The framework sets
 * the source for HTTP APIs only.
 */
exports.calledByItsApiAlone = (functions) =>
  Object.fromEntries(
    Object.entries(functions)
      .filter(([, config]) => hasTrigger(config, 'websocket'))
      .map(([name]) => [
        `${normalized(name)}LambdaPermissionWebsockets`,
        {
          Properties: {
            SourceArn: join(
              'arn:', { Ref: 'AWS::Partition' }, ':execute-api:', { Ref: 'AWS::Region' }, ':',
              { Ref: 'AWS::AccountId' }, ':', { Ref: 'WebsocketsApi' }, '/*'
            ),
          },
        },
      ])
  );

const document = (...statements) => ({ Version: '2012-10-17', Statement: statements });

const refusal = (actions, resources) => ({
  Effect: 'Deny',
  Principal: '*',
  Action: actions,
  Resource: resources,
  Condition: { Bool: { 'aws:SecureTransport': 'false' } },
});

const policyOf = (id, resources) =>
  Object.values(resources).find(
    ({ Type: type, Properties: { Queues: queues } = {} }) =>
      type === 'AWS::SQS::QueuePolicy' && queues.some((queue) => queue.Ref === id)
  );
