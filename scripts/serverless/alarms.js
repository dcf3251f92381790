'use strict';

const { METRICS, STACK, deployedName, hasTrigger, logicalName, normalized } = require('./members');

const MINUTES = 60;
const HOURS = 3600;
// Work that waits as long as this needs an operator.
const LATE_SECONDS = 15 * MINUTES;
// An error rate of fewer invocations is not reliable: one error in three calls is not 33 %.
const LEAST_INVOCATIONS = 100;
const MAX_ERROR_PERCENT = 1;
// The longest time for a caller; `alarms.latency` in function.yml replaces it.
const MAX_LATENCY_SECONDS = 5;

/**
 * Alarms for every function, stream, queue, table, state machine and API of the stack, and for the
 * scheduled checks. All of them notify one encrypted topic.
 */
module.exports = (stack) => ({
  ...topic(stack.alarmMail),
  ...Object.fromEntries(
    alarms(stack).map((alarm) => [`${logicalName(alarm.name)}Alarm`, resource(alarm)])
  ),
});

const alarms = ({ functions, queues, tables, stateMachines, schedules }) => {
  const configs = Object.values(functions);
  const tasks = JSON.stringify(stateMachines);
  return [
    ...Object.entries(functions).flatMap(([name, config]) =>
      ofFunction(name, config, hasCallers(name, config, tasks))
    ),
    ...Object.entries(tables).flatMap(ofTable),
    ...Object.entries(queues).map(([id, queue]) => ofQueue(id, queue, isRead(id, configs))),
    ...Object.keys(stateMachines).flatMap(ofStateMachine),
    ...(configs.some((config) => hasTrigger(config, 'httpApi')) ? HTTP_API : []),
    ...(configs.some((config) => hasTrigger(config, 'websocket')) ? SOCKETS : []),
    ...(functions['state-manager'] ? FILES : []),
    ...(functions['state-manager'] && schedules ? SCHEDULED_CHECKS : []),
  ];
};

/**
 * Whether a client of the HTTP API or of the socket, or a state machine, waits for a function's
 * answer. ($disconnect has no client.)
 */
const hasCallers = (name, config, tasks) =>
  hasTrigger(config, 'httpApi') ||
  (config.events || []).some(({ websocket }) => websocket && websocket.route !== '$disconnect') ||
  new RegExp(`\\b${normalized(name)}LambdaFunction\\b`).test(tasks);

const ofFunction = (name, config, called) => {
  const metric = (metricName) => ({
    Namespace: 'AWS/Lambda',
    MetricName: metricName,
    Dimensions: [{ Name: 'FunctionName', Value: deployedName(name) }],
  });
  const { timeout, alarms: { answeredErrors = [], latency = called } = {} } = config;
  const answered = Object.fromEntries(
    answeredErrors.map((given, index) => [`answered${index + 1}`, ofAnswers(given)])
  );
  const counted = called ? answered : {};
  return [
    {
      name: `${name}-errors`,
      says: `${name} raised an error or reached its time limit.`,
      see: 'function-errors',
      ...metric('Errors'),
      ...atLeast(1, { within: 5 * MINUTES }),
    },
    {
      name: `${name}-error-rate`,
      says: `More than ${MAX_ERROR_PERCENT} % of the calls of ${name} ended with an error.`,
      see: 'error-rates',
      ...above(MAX_ERROR_PERCENT, {
        within: 5 * MINUTES,
        of:
          `IF(invocations >= ${LEAST_INVOCATIONS}, ` +
          `100 * (${['errors', ...Object.keys(counted)].join(' + ')}) / invocations, 0)`,
        where: { invocations: metric('Invocations'), errors: metric('Errors'), ...counted },
      }),
    },
    ...(answeredErrors.length
      ? [
          {
            name: `${name}-answered-errors`,
            says: `${name} answered a call with an error, which Lambda counts as a success.`,
            see: 'answered-errors',
            ...sumAtLeast(1, { within: 5 * MINUTES, of: answered }),
          },
        ]
      : []),
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
    ...(latency ? [ofLatency(name, metric('Duration'), latency)] : []),
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

/** `latency` is true, or function.yml's own metric and seconds. */
const ofLatency = (name, duration, { metric, seconds = MAX_LATENCY_SECONDS }) => ({
  name: `${name}-latency`,
  says: `One call in twenty of ${name}, or more, took longer than ${seconds} s, for 15 minutes.`,
  see: 'latencies',
  ...(metric ? ofOwn(metric) : duration),
  ...above(seconds * 1000, { within: 5 * MINUTES, times: 3, percentile: 'p95' }),
});

/** A metric of `alarms.answeredErrors` in function.yml: its name, and the value of a dimension. */
const ofAnswers = ({ metric, ...dimensions }) => ofOwn(metric, dimensions);

const ofTable = ([id, { Properties: { TableName: given, GlobalSecondaryIndexes = [] } }]) => {
  const name =
    typeof given === 'string' ? given.replace('${param:tablePrefix}', '') : kebab(id);
  const indexes = GlobalSecondaryIndexes.map(({ IndexName }) => IndexName);
  return Object.entries(THROTTLES).map(([kind, metricName]) => ({
    name: `${name}-${kind}-throttles`,
    says: `DynamoDB refused ${kind}s of the table ${name} or of one of its indexes, for ten minutes.`,
    see: 'table-throttles',
    ...sumAtLeast(1, {
      within: 5 * MINUTES,
      times: 2,
      // A table's metrics don't include those of its indexes.
      of: Object.fromEntries(
        [undefined, ...indexes].map((index, place) => [
          index ? `index${place}` : 'itself',
          ofTables(metricName, id, index),
        ])
      ),
    }),
  }));
};

const THROTTLES = { read: 'ReadThrottleEvents', write: 'WriteThrottleEvents' };

const ofTables = (metricName, id, index) => ({
  Namespace: 'AWS/DynamoDB',
  MetricName: metricName,
  Dimensions: [
    { Name: 'TableName', Value: { Ref: id } },
    ...(index ? [{ Name: 'GlobalSecondaryIndexName', Value: index }] : []),
  ],
});

/** `JobFlow` → `job-flow` */
const kebab = (id) => id.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase();

/** A queue with a reader must not fall behind; any other one holds messages for an operator. */
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
        says: `The queue ${name} holds messages that failed for good; an operator must handle them.`,
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
      says: `An execution of ${name} reached its total time limit.`,
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
    // A refused handshake is an integration error, too, so that a few are normal.
    name: 'websocket-integration-errors',
    says: 'Handshakes are refused, or messages answered with an error, at a rate of five a minute.',
    see: 'socket-errors',
    ...ofApi('WebsocketsApi')('IntegrationError'),
    ...atLeast(25, { within: 5 * MINUTES, times: 3 }),
  },
];

const ofOwn = (metricName, dimensions = {}) => ({
  Namespace: METRICS,
  MetricName: metricName,
  Dimensions: Object.entries({ Environment: '${sls:stage}', ...dimensions }).map(
    ([Name, Value]) => ({ Name, Value })
  ),
});

const FILES = [
  {
    // An exact count corrects the counters, so each drift is reported once.
    name: 'counters-drift',
    says: 'An exact count found the counters of files by status wrong, and corrected them.',
    see: 'counters',
    ...ofOwn('CountersDrift'),
    ...atLeast(1, { within: 1 * HOURS, statistic: 'Maximum' }),
  },
];

const SCHEDULED_CHECKS = [
  {
    name: 'counters-unchecked',
    says: 'The weekly exact count failed, so the counters of files by status may be wrong.',
    see: 'unchecked-counters',
    ...ofOwn('CountersUnchecked'),
    ...atLeast(1, { within: 1 * HOURS, statistic: 'Maximum' }),
    // In alarm until the next count succeeds, by hand or a week later.
    TreatMissingData: 'ignore',
  },
  {
    name: 'orphans',
    says: 'Two runs in a row found files that are stuck, lost or contradict the objects in S3.',
    see: 'orphans',
    ...ofOwn('Orphans'),
    ...atLeast(1, { within: 6 * HOURS, times: 2, statistic: 'Maximum' }),
    // One value a run: the last one holds until the next run.
    TreatMissingData: 'ignore',
  },
];

function atLeast(threshold, { within, times, statistic = 'Sum' }) {
  return {
    Statistic: statistic,
    Period: within,
    ...compared('GreaterThanOrEqualToThreshold', threshold, times),
  };
}

/** On the sum of several metrics; a plain alarm for one metric. */
function sumAtLeast(threshold, { within, times, of }) {
  const [first, ...more] = Object.values(of);
  if (!more.length) return { ...first, ...atLeast(threshold, { within, times }) };
  return {
    Metrics: queries(Object.keys(of).join(' + '), of, within),
    ...compared('GreaterThanOrEqualToThreshold', threshold, times),
  };
}

/** On a percentile, or on an expression over metrics by their ids. */
function above(threshold, { within, times, percentile, of, where }) {
  return {
    ...(percentile ? { ExtendedStatistic: percentile, Period: within } : {}),
    ...(of ? { Metrics: queries(of, where, within) } : {}),
    ...compared('GreaterThanThreshold', threshold, times),
  };
}

/** Metric math treats a missing value as 0. */
const queries = (expression, metrics, within) => [
  { Id: 'result', Expression: expression, ReturnData: true },
  ...Object.entries(metrics).map(([id, metric]) => ({
    Id: id,
    MetricStat: { Metric: metric, Period: within, Stat: 'Sum' },
    ReturnData: false,
  })),
];

/** For metrics without data when nothing happens. */
function compared(operator, threshold, times = 1) {
  return {
    ComparisonOperator: operator,
    Threshold: threshold,
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

/** CloudWatch can't publish to a topic that uses AWS's key for SNS, whose policy does not allow it. */
const topic = (mail) => ({
  AlarmsKey: {
    Type: 'AWS::KMS::Key',
    Properties: {
      Description: `Encrypts the notifications of the alarms of ${STACK}`,
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
