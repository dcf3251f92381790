'use strict';

const { METRICS, STACK, deployedName, hasTrigger, sources } = require('./members');

const COLUMNS = 24;
const WIDTH = 8;
const HEIGHT = 6;
const STAGE = '${sls:stage}';
// A project may lack the functions that emit a metric.
const SOURCES = sources();
// The beginnings of names such as f"Request{status}".
const BEGINNINGS = [...SOURCES.matchAll(/\.metric\(\s*f"(\w+)\{/g)].map(([, text]) => text);
const isEmitted = (metric) =>
  SOURCES.includes(`"${metric}"`) || BEGINNINGS.some((text) => metric.startsWith(text));

/** The stage's dashboard. A test checks that AWS or a function emits each of its metrics. */
module.exports = (stack) => ({
  Dashboard: {
    Type: 'AWS::CloudWatch::Dashboard',
    Properties: {
      DashboardName: STACK,
      // ${LogicalId} in the text is replaced by CloudFormation.
      DashboardBody: { 'Fn::Sub': JSON.stringify({ start: '-PT24H', widgets: laidOut(stack) }) },
    },
  },
});

const sections = ({ functions, queues, tables, stateMachines, alarms }) => {
  const names = Object.keys(functions);
  const triggeredBy = (kind) => names.filter((name) => hasTrigger(functions[name], kind));
  return {
    ...(alarms.length ? { Alarms: [alarmStatus(alarms)] } : {}),
    Jobs: [
      graph('Request outcomes', [
        own('RequestCompleted'),
        own('RequestFailed'),
        own('RequestCancelled'),
        own('RequestRetried'),
        own('RequestRequeued'),
      ]),
      graph('Refused requests by reason', [search('RequestRefused', ['ErrorType'], 'Sum', 300)]),
      graph('Wait before a request begins, ms', [
        own('QueueLatency', { stat: 'p50', label: 'median' }),
        own('QueueLatency', { stat: 'p99', label: 'p99' }),
      ]),
      graph('Time by action, ms', [search('ProcessingLatency', ['Action'], 'p95', 300)]),
      graph('Handled failures', [
        own('PostFailed'),
        own('RecordRefused'),
        own('SweepFailed'),
        own('CleanupFailed'),
      ]),
      ...(triggeredBy('websocket').length ? sockets() : []),
      ...(triggeredBy('httpApi').length ? [httpApi()] : []),
    ],
    Webhooks: [
      graph('Webhook results', [
        own('WebhookDelivered'),
        own('WebhookFailed'),
        own('WebhookAttempts'),
      ]),
      graph('Status look-ups by result', [search('StatusChecks', ['Result'], 'Sum', 300)]),
    ],
    Queues: [
      graph('Oldest message, seconds', queueLines(queues, 'ApproximateAgeOfOldestMessage')),
      graph('Messages', queueLines(queues, 'ApproximateNumberOfMessagesVisible')),
      graph(
        'Age of stream records, ms',
        triggeredBy('stream').map((name) => ofFunction(name, 'IteratorAge', 'Maximum'))
      ),
    ],
    'Job flow': [
      ...Object.keys(stateMachines).map((id) =>
        graph(`Executions of ${id}`, [
          ofStateMachine(id, 'ExecutionsStarted'),
          ofStateMachine(id, 'ExecutionsSucceeded'),
          ofStateMachine(id, 'ExecutionsFailed'),
          ofStateMachine(id, 'ExecutionsTimedOut'),
          ofStateMachine(id, 'ExecutionsAborted'),
        ])
      ),
      graph('Claims, interruptions, time-outs', [
        search('ClaimOperation', ['Action'], 'Sum', 300),
        search('InterruptionRecorded', ['Kind'], 'Sum', 300),
        search('JobTimedOut', ['Kind'], 'Sum', 300),
        own('InterruptSent'),
      ]),
    ],
    ...(functions['state-manager'] ? { Files: files() } : {}),
    Tables: [
      graph('Consumed read units', tableLines(tables, 'ConsumedReadCapacityUnits')),
      graph('Consumed write units', tableLines(tables, 'ConsumedWriteCapacityUnits')),
      graph('Refused reads', tableLines(tables, 'ReadThrottleEvents')),
      graph('Refused writes', tableLines(tables, 'WriteThrottleEvents')),
      graph('Latency by operation, ms', byOperation(tables, 'SuccessfulRequestLatency', 'Average')),
      graph('Throttled requests by operation', byOperation(tables, 'ThrottledRequests', 'Sum')),
      graph('Errors of DynamoDB by operation', byOperation(tables, 'SystemErrors', 'Sum')),
    ],
    Functions: [
      graph('Errors', names.map((name) => ofFunction(name, 'Errors', 'Sum'))),
      graph('Answered errors', names.flatMap((name) => answeredErrors(name, functions[name]))),
      graph('Durations (p95), ms', names.map((name) => ofFunction(name, 'Duration', 'p95'))),
      graph('Invocations', names.map((name) => ofFunction(name, 'Invocations', 'Sum'))),
      graph('Throttles', names.map((name) => ofFunction(name, 'Throttles', 'Sum'))),
      graph(
        'Concurrent executions',
        names.map((name) => ofFunction(name, 'ConcurrentExecutions', 'Maximum'))
      ),
    ],
  };
};

const sockets = () => [
  graph('Socket connections', [
    own('ConnectionEstablished', { id: 'opened' }),
    own('ConnectionClosed', { id: 'closed' }),
    own('AuthenticationFailed'),
    own('ConnectionRefused'),
    [
      {
        expression: 'RUNNING_SUM(FILL(opened, 0) - FILL(closed, 0))',
        label: 'open, since the left edge',
        yAxis: 'right',
      },
    ],
  ]),
  graph('Socket messages', [
    ofApi('WebsocketsApi', 'MessageCount'),
    ofApi('WebsocketsApi', 'IntegrationError'),
    ofApi('WebsocketsApi', 'ExecutionError'),
  ]),
];

const httpApi = () =>
  graph('HTTP API', [ofApi('HttpApi', 'Count'), ofApi('HttpApi', '4xx'), ofApi('HttpApi', '5xx')]);

const files = () => [
  graph('Files by status', [search('FilesByStatus', ['Status'], 'Maximum', 3600)], 3600),
  graph('Orphans by kind', [search('OrphansByKind', ['Kind'], 'Maximum', 21600)], 21600),
  graph(
    'Oldest pending file, seconds',
    [own('OldestPendingAgeSeconds', { stat: 'Maximum', period: 21600 })],
    21600
  ),
  graph(
    'Orphans, resets, drift',
    [
      own('Orphans', { stat: 'Maximum', period: 21600 }),
      own('FilesReset', { period: 3600 }),
      own('CountersDrift', { stat: 'Maximum', period: 3600 }),
      own('CountersUnchecked', { stat: 'Maximum', period: 3600 }),
    ],
    3600
  ),
];

const own = (name, options = {}) =>
  isEmitted(name) && [METRICS, name, 'Environment', STAGE, options];

const answeredErrors = (name, { alarms: { answeredErrors: given = [] } = {} }) =>
  given.map(({ metric, ...dimensions }) => [
    METRICS, metric, 'Environment', STAGE, ...Object.entries(dimensions).flat(), { label: name },
  ]);

/** One line for each value of the dimensions. */
const search = (name, dimensions, stat, period) => isEmitted(name) && [
  {
    expression:
      `SEARCH('{${METRICS},${['Environment', ...dimensions].join(',')}} ` +
      `MetricName="${name}" Environment="${STAGE}"', '${stat}', ${period})`,
  },
];

const ofFunction = (name, metric, stat) => [
  'AWS/Lambda', metric, 'FunctionName', deployedName(name), { stat, label: name },
];

/** A table's metrics don't include those of its indexes. */
const tableLines = (tables, metric) =>
  Object.entries(tables).flatMap(([id, { Properties: { GlobalSecondaryIndexes = [] } }]) => [
    ['AWS/DynamoDB', metric, 'TableName', `\${${id}}`],
    ...GlobalSecondaryIndexes.map(({ IndexName }) => [
      'AWS/DynamoDB', metric, 'TableName', `\${${id}}`, 'GlobalSecondaryIndexName', IndexName,
    ]),
  ]);

/** One line for each operation that AWS reports. */
const byOperation = (tables, metric, stat) =>
  Object.keys(tables).map((id) => [
    {
      expression:
        `SEARCH('{AWS/DynamoDB,TableName,Operation} ` +
        `MetricName="${metric}" TableName="\${${id}}"', '${stat}', 300)`,
    },
  ]);

const ofApi = (id, metric) => ['AWS/ApiGateway', metric, 'ApiId', `\${${id}}`];

const ofStateMachine = (id, metric) => ['AWS/States', metric, 'StateMachineArn', `\${${id}}`];

const queueLines = (queues, metric) =>
  Object.keys(queues).map((id) => [
    'AWS/SQS', metric, 'QueueName', `\${${id}.QueueName}`, { stat: 'Maximum' },
  ]);

/** Undefined if there are no lines. */
const graph = (title, lines, period = 300) => {
  const metrics = lines.filter(Boolean);
  return metrics.length ? drawn(title, metrics, period) : undefined;
};

const drawn = (title, metrics, period) => ({
  type: 'metric',
  width: WIDTH,
  height: HEIGHT,
  properties: {
    title,
    metrics,
    period,
    stat: 'Sum',
    view: 'timeSeries',
    region: '${AWS::Region}',
    yAxis: { left: { min: 0 } },
  },
});

const heading = (title) => ({
  type: 'text',
  width: COLUMNS,
  height: 1,
  properties: { markdown: `## ${title}` },
});

const alarmStatus = (ids) => ({
  type: 'alarm',
  width: COLUMNS,
  height: HEIGHT,
  properties: { title: 'Alarms', alarms: ids.map((id) => `\${${id}.Arn}`) },
});

/** Each section below its title, three widgets a row. */
const laidOut = (stack) => {
  const placed = [];
  let y = 0;
  for (const [title, graphs] of Object.entries(sections(stack))) {
    const widgets = graphs.filter(Boolean);
    if (widgets.length === 0) continue;
    placed.push({ ...heading(title), x: 0, y });
    y += 1;
    widgets.forEach((widget, index) => {
      const row = Math.floor((index * WIDTH) / COLUMNS);
      placed.push({ ...widget, x: (index * WIDTH) % COLUMNS, y: y + row * HEIGHT });
    });
    y += Math.ceil((widgets.length * WIDTH) / COLUMNS) * HEIGHT;
  }
  return placed;
};
