'use strict';

const { METRICS, STACK, deployedName, hasTrigger, logicalName } = require('./members');

const MINUTES = 60;
const HOURS = 3600;
// Work that waits this long, or longer, waits for somebody to look.
const LATE_SECONDS = 15 * MINUTES;

/**
 * Alarms on what the stack has: every function, stream, queue, state machine and API brings its
 * own, and the scheduled checks bring theirs. All of them tell one encrypted topic.
 */
module.exports = (stack) => ({
  ...topic(stack.alarmMail),
  ...Object.fromEntries(
    alarms(stack).map((alarm) => [`${logicalName(alarm.name)}Alarm`, resource(alarm)])
  ),
});

const alarms = ({ functions, queues, stateMachines, schedules }) => {
  const configs = Object.values(functions);
  return [
    ...Object.entries(functions).flatMap(ofFunction),
    ...Object.entries(queues).map(([id, queue]) => ofQueue(id, queue, isRead(id, configs))),
    ...Object.keys(stateMachines).flatMap(ofStateMachine),
    ...(configs.some((config) => hasTrigger(config, 'httpApi')) ? HTTP_API : []),
    ...(configs.some((config) => hasTrigger(config, 'websocket')) ? SOCKETS : []),
    ...(functions['state-manager'] ? FILES : []),
    ...(functions['state-manager'] && schedules ? SCHEDULED_CHECKS : []),
  ];
};

const ofFunction = ([name, config]) => {
  const metric = (metricName) => ({
    Namespace: 'AWS/Lambda',
    MetricName: metricName,
    Dimensions: [{ Name: 'FunctionName', Value: deployedName(name) }],
  });
  const { timeout } = config;
  return [
    {
      name: `${name}-errors`,
      says: `${name} raised or ran into its time limit.`,
      see: 'function-errors',
      ...metric('Errors'),
      ...atLeast(1, { within: 5 * MINUTES }),
    },
    {
      name: `${name}-throttles`,
      says: `Invocations of ${name} were refused: the concurrency of the account or function is used up.`,
      see: 'throttles',
      ...metric('Throttles'),
      ...atLeast(1, { within: 5 * MINUTES, times: 2 }),
    },
    {
      name: `${name}-duration`,
      says: `An invocation of ${name} took nine tenths of its time limit or more.`,
      see: 'durations',
      ...metric('Duration'),
      ...atLeast(timeout * 900, { within: 5 * MINUTES, statistic: 'Maximum' }),
    },
    ...(hasTrigger(config, 'stream')
      ? [
          {
            name: `${name}-stream-age`,
            says: `Changes wait in the stream of ${name} for a quarter of an hour.`,
            see: 'streams',
            ...metric('IteratorAge'),
            ...atLeast(LATE_SECONDS * 1000, { within: 5 * MINUTES, statistic: 'Maximum' }),
          },
        ]
      : []),
  ];
};

/** `JobFlow` → `job-flow` */
const kebab = (id) => id.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase();

/** A queue that functions read must not fall behind; any other keeps what somebody must look at. */
const ofQueue = (id, { Properties: { QueueName: given } = {} }, read) => {
  const name =
    typeof given === 'string'
      ? given.replace('${param:tablePrefix}', '').replace(/\.fifo$/, '')
      : kebab(id);
  const metric = (metricName) => ({
    Namespace: 'AWS/SQS',
    MetricName: metricName,
    Dimensions: [{ Name: 'QueueName', Value: { 'Fn::GetAtt': [id, 'QueueName'] } }],
  });
  return read
    ? {
        name: `${name}-age`,
        says: `A message of the queue ${name} has waited for a quarter of an hour.`,
        see: 'late-messages',
        ...metric('ApproximateAgeOfOldestMessage'),
        ...atLeast(LATE_SECONDS, { within: 5 * MINUTES, statistic: 'Maximum' }),
      }
    : {
        name: `${name}-not-empty`,
        says: `The queue ${name} holds what failed for good, and nothing reads it by itself.`,
        see: 'dead-letters',
        ...metric('ApproximateNumberOfMessagesVisible'),
        ...atLeast(1, { within: 5 * MINUTES, statistic: 'Maximum' }),
      };
};

const isRead = (id, configs) =>
  configs
    .flatMap(({ events = [] }) => events)
    .some(({ sqs }) => sqs && sqs.arn && (sqs.arn['Fn::GetAtt'] || [])[0] === id);

const ofStateMachine = (id) => {
  const name = kebab(id);
  const metric = (metricName) => ({
    Namespace: 'AWS/States',
    MetricName: metricName,
    Dimensions: [{ Name: 'StateMachineArn', Value: { Ref: id } }],
  });
  return [
    {
      name: `${name}-failed`,
      says: `Five executions of ${name} or more failed within a quarter of an hour.`,
      see: 'executions',
      ...metric('ExecutionsFailed'),
      ...atLeast(5, { within: 15 * MINUTES }),
    },
    {
      name: `${name}-timed-out`,
      says: `An execution of ${name} came to the end of its time as a whole.`,
      see: 'executions',
      ...metric('ExecutionsTimedOut'),
      ...atLeast(1, { within: 5 * MINUTES }),
    },
  ];
};

const ofApi = (id) => (metricName) => ({
  Namespace: 'AWS/ApiGateway',
  MetricName: metricName,
  Dimensions: [{ Name: 'ApiId', Value: { Ref: id } }],
});

const HTTP_API = [
  {
    name: 'http-5xx',
    says: 'The HTTP API answered with a server error.',
    see: 'http-errors',
    ...ofApi('HttpApi')('5xx'),
    ...atLeast(1, { within: 5 * MINUTES }),
  },
];

const SOCKETS = [
  {
    name: 'websocket-execution-errors',
    says: 'API Gateway could not get an answer from the functions behind the sockets.',
    see: 'socket-errors',
    ...ofApi('WebsocketsApi')('ExecutionError'),
    ...atLeast(1, { within: 5 * MINUTES }),
  },
  {
    // A refused handshake is an integration error, too: a single one is everyday life.
    name: 'websocket-integration-errors',
    says: 'Handshakes are refused, or messages answered with an error, at a rate of five a minute.',
    see: 'socket-errors',
    ...ofApi('WebsocketsApi')('IntegrationError'),
    ...atLeast(25, { within: 5 * MINUTES, times: 3 }),
  },
];

const ofFiles = (metricName) => ({
  Namespace: METRICS,
  MetricName: metricName,
  Dimensions: [{ Name: 'Environment', Value: '${sls:stage}' }],
});

const FILES = [
  {
    // An exact count corrects the counters, so that each drift is told once.
    name: 'counters-drift',
    says: 'An exact count found the counters of files by status wrong, and corrected them.',
    see: 'counters',
    ...ofFiles('CountersDrift'),
    ...atLeast(1, { within: 1 * HOURS, statistic: 'Maximum' }),
  },
];

const SCHEDULED_CHECKS = [
  {
    name: 'counters-unchecked',
    says: 'The weekly exact count could not tell whether the counters of files by status are right.',
    see: 'unchecked-counters',
    ...ofFiles('CountersUnchecked'),
    ...atLeast(1, { within: 1 * HOURS, statistic: 'Maximum' }),
    // Until a count can tell, by hand or a week later.
    TreatMissingData: 'ignore',
  },
  {
    name: 'orphans',
    says: 'Two runs in a row found files that are stuck, lost or contradict what is in S3.',
    see: 'orphans',
    ...ofFiles('Orphans'),
    ...atLeast(1, { within: 6 * HOURS, times: 2, statistic: 'Maximum' }),
    // One value a run: until the next one speaks, what the last one found holds.
    TreatMissingData: 'ignore',
  },
];

/** Where no data means that nothing happened. */
function atLeast(threshold, { within, times = 1, statistic = 'Sum' }) {
  return {
    Statistic: statistic,
    ComparisonOperator: 'GreaterThanOrEqualToThreshold',
    Threshold: threshold,
    Period: within,
    EvaluationPeriods: times,
    DatapointsToAlarm: times,
    TreatMissingData: 'notBreaching',
  };
}

const resource = ({ name, says, see, ...properties }) => ({
  Type: 'AWS::CloudWatch::Alarm',
  Properties: {
    AlarmName: deployedName(name),
    AlarmDescription: `${says} See docs/observing.md#${see}`,
    ...properties,
    AlarmActions: [{ Ref: 'AlarmsTopic' }],
    OKActions: [{ Ref: 'AlarmsTopic' }],
  },
});

const cloudWatchAlone = {
  StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
};

/** CloudWatch can't publish to a topic under AWS's own key for SNS: its policy lets nobody in. */
const topic = (mail) => ({
  AlarmsKey: {
    Type: 'AWS::KMS::Key',
    Properties: {
      Description: `Encrypts what the alarms of ${STACK} say`,
      EnableKeyRotation: true,
      PendingWindowInDays: 7,
      KeyPolicy: {
        Version: '2012-10-17',
        Statement: [
          {
            Effect: 'Allow',
            Principal: {
              AWS: {
                'Fn::Join': [
                  '',
                  ['arn:', { Ref: 'AWS::Partition' }, ':iam::', { Ref: 'AWS::AccountId' }, ':root'],
                ],
              },
            },
            Action: 'kms:*',
            Resource: '*',
          },
          {
            Effect: 'Allow',
            Principal: { Service: 'cloudwatch.amazonaws.com' },
            Action: ['kms:Decrypt', 'kms:GenerateDataKey*'],
            Resource: '*',
            Condition: cloudWatchAlone,
          },
        ],
      },
    },
  },
  AlarmsTopic: {
    Type: 'AWS::SNS::Topic',
    Properties: {
      TopicName: deployedName('alarms'),
      KmsMasterKeyId: { 'Fn::GetAtt': ['AlarmsKey', 'Arn'] },
      ...(mail ? { Subscription: [{ Protocol: 'email', Endpoint: mail }] } : {}),
    },
  },
  AlarmsTopicPolicy: {
    Type: 'AWS::SNS::TopicPolicy',
    Properties: {
      Topics: [{ Ref: 'AlarmsTopic' }],
      PolicyDocument: {
        Version: '2012-10-17',
        Statement: [
          {
            Effect: 'Allow',
            Principal: { Service: 'cloudwatch.amazonaws.com' },
            Action: 'sns:Publish',
            Resource: { Ref: 'AlarmsTopic' },
            Condition: cloudWatchAlone,
          },
        ],
      },
    },
  },
});
