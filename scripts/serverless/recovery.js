'use strict';

const {
  CloudFormationClient,
  ContinueUpdateRollbackCommand,
  DeleteStackCommand,
  DescribeStackEventsCommand,
  DescribeStacksCommand,
  ListStacksCommand,
} = require('@aws-sdk/client-cloudformation');
const UserError = require('./user-error');

// SQS refuses the name of a deleted queue for so long.
const QUEUE_NAME_SECONDS = 60;
// A stack without an executed change set; an older one was left by an interrupted run.
const REVIEW_SECONDS = 120;
const POLL_SECONDS = 5;

/** What must be done with a stack before it can be deployed. */
exports.stepFor = (status, ageSeconds) => {
  if (status === undefined) return 'ready';
  if (status === 'REVIEW_IN_PROGRESS') return ageSeconds < REVIEW_SECONDS ? 'wait' : 'delete';
  if (status.endsWith('_IN_PROGRESS')) return 'wait';
  // Its creation failed: it has never held data, and it can't be updated.
  if (['CREATE_FAILED', 'ROLLBACK_COMPLETE', 'ROLLBACK_FAILED'].includes(status)) return 'delete';
  if (status === 'UPDATE_ROLLBACK_FAILED') return 'continue';
  if (status === 'DELETE_FAILED') return 'refuse';
  return 'ready';
};

/** The seconds until the names of queues that were deleted at a time can be used. */
exports.secondsUntilFree = (deleted, now) =>
  deleted ? Math.max(0, QUEUE_NAME_SECONDS - (now - deleted) / 1000) : 0;

/**
 * Bring a stack that an earlier deployment left behind, or that another one still changes, to a
 * state that can be deployed.
 */
exports.settle = async ({ config, stackName, stage, emulated, notice }) => {
  const client = new CloudFormationClient(config);
  const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
  const poll = () => pause(emulated ? 0.2 : POLL_SECONDS);
  const tried = new Set();
  const once = async (step, status, command) => {
    if (tried.has(step)) throw new UserError(helpless(stackName, status));
    tried.add(step);
    notice(`Stack ${stackName} is in state ${status}; ${WORDS[step]}`);
    await client.send(command);
    await poll();
  };
  for (;;) {
    const stack = await described(client, stackName);
    const status = stack?.StackStatus;
    const age = stack ? (Date.now() - stack.CreationTime) / 1000 : 0;
    const step = exports.stepFor(status, emulated ? Infinity : age);
    if (step === 'refuse') {
      throw new UserError(
        `the removal of stack ${stackName} failed; finish it first: ` +
          `uv run jobplane down --stage ${stage}`
      );
    }
    if (step === 'delete') await once(step, status, new DeleteStackCommand({ StackName: stackName }));
    if (step === 'continue') {
      await once(step, status, new ContinueUpdateRollbackCommand({ StackName: stackName }));
    }
    if (step === 'wait') {
      if (!tried.has('wait')) notice(`Stack ${stackName} is in state ${status}; waiting`);
      tried.add('wait');
      await poll();
    }
    if (step === 'ready') {
      const deleted = emulated ? undefined : await lastDeletion(client, stackName, status);
      const seconds = exports.secondsUntilFree(deleted, Date.now());
      if (seconds > 0) {
        notice(`Waiting ${Math.ceil(seconds)} s: SQS does not accept the names of deleted queues yet`);
      }
      return pause(seconds);
    }
  }
};

const WORDS = {
  delete: 'it was never deployed, so it is deleted',
  continue: 'continuing its rollback',
};

const helpless = (stackName, status) =>
  `stack ${stackName} is in state ${status} again; its events say why: ` +
  `aws cloudformation describe-stack-events --stack-name ${stackName}`;

const described = async (client, stackName) => {
  try {
    const { Stacks: [stack] } = await client.send(new DescribeStacksCommand({ StackName: stackName }));
    return stack.StackStatus === 'DELETE_COMPLETE' ? undefined : stack;
  } catch (error) {
    if (error.name === 'ValidationError' && /does not exist/.test(error.message)) return undefined;
    throw error;
  }
};

/** When queues of the stack were last deleted, by a rollback or with a stack of this name. */
const lastDeletion = async (client, stackName, status) => {
  if (status?.includes('ROLLBACK')) {
    const { StackEvents: [latest] } = await client.send(
      new DescribeStackEventsCommand({ StackName: stackName })
    );
    return latest?.Timestamp;
  }
  if (status !== undefined) return undefined;
  // The most recent events come first.
  const { StackSummaries: removed } = await client.send(
    new ListStacksCommand({ StackStatusFilter: ['DELETE_COMPLETE'] })
  );
  return removed.find(({ StackName: name }) => name === stackName)?.DeletionTime;
};
