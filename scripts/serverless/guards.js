'use strict';

const { hasTrigger, normalized } = require('./members');

const join = (...parts) => ({ 'Fn::Join': ['', parts] });
const arn = (id) => ({ 'Fn::GetAtt': [id, 'Arn'] });

/**
 * Every bucket and queue refuses requests without TLS, from all callers. Each has one policy, so the
 * statement is added to the one that is there, if there is one.
 */
exports.refusePlainHttp = (resources) => {
  for (const [id, { Type: type }] of Object.entries(resources)) {
    if (type === 'AWS::S3::Bucket') {
      ofBucket(id, resources).push(refusal('s3:*', [arn(id), join(arn(id), '/*')]));
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

/** SES may store what the rules of one of the account's rule sets receive, below inbox/. */
exports.acceptEmails = (resources, ruleSet) => {
  ofBucket('FilesBucket', resources).push({
    Effect: 'Allow',
    Principal: { Service: 'ses.amazonaws.com' },
    Action: 's3:PutObject',
    Resource: join(arn('FilesBucket'), '/inbox/*'),
    Condition: {
      StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
      ArnLike: {
        'aws:SourceArn': join(
          'arn:', { Ref: 'AWS::Partition' }, ':ses:*:', { Ref: 'AWS::AccountId' },
          `:receipt-rule-set/${ruleSet}:receipt-rule/*`
        ),
      },
    },
  });
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

/** The statements of a bucket's policy, which is made if there is none. */
const ofBucket = (id, resources) => {
  resources[`${id}Policy`] ??= {
    Type: 'AWS::S3::BucketPolicy',
    Properties: { Bucket: { Ref: id }, PolicyDocument: document() },
  };
  return resources[`${id}Policy`].Properties.PolicyDocument.Statement;
};

const policyOf = (id, resources) =>
  Object.values(resources).find(
    ({ Type: type, Properties: { Queues: queues } = {} }) =>
      type === 'AWS::SQS::QueuePolicy' && queues.some((queue) => queue.Ref === id)
  );
