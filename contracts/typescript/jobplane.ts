// Made by `jobplane schema` from the models in libs/models; not to be edited.

export type ClaimInput = AcquireInput | RenewInput | ReleaseInput;
export type ClaimResult =
  Claimed | NotClaimed | ClaimedTooSoon | Renewed | NotRenewed | Released | NotReleased;
export type CountFilesResult = null;
export type DeliverWebhookEvent = DeliveryOnDemand | QueueEvent;
export type DeliverWebhookResult = DeliveryResult | DeliveryRefusal | BatchFailures;
export type WebhookStatus =
  "pending" | "delivered" | "retrying" | "failed" | "disabled" | "unsigned_refused" | "refused";
export type HandleTimeoutEvent = HandleTimeoutInput | ExecutionEnded;
export type ProcessorEvent = StreamEvent | SweepEvent;
export type ProcessorResult = BatchFailures | Swept;
export type SendInterruptResult = InterruptSent | InterruptNotSent;
export type StateManagerEvent =
  | BatchUpdateOperation
  | FindOrphansOperation
  | GetFileStateOperation
  | GetProcessingTimelineOperation
  | GetStatsOperation
  | QueryByStatusOperation
  | ResetStuckFilesOperation
  | UpdateStateOperation
  | ValidateConsistencyOperation;
/**
 * pending → manifested → processing → completed | failed; failed → pending; any → quarantined.
 *
 * A manifest skips `manifested`, and is never quarantined.
 */
export type FileStatus =
  "pending" | "manifested" | "processing" | "completed" | "failed" | "quarantined";
export type StatusEvent = StatusInvocation | BatchInvocation | HttpEvent;
export type OkCode =
  "ASSEMBLY_UPLOADING" | "ASSEMBLY_EXECUTING" | "ASSEMBLY_COMPLETED" | "ASSEMBLY_CANCELED";
export type JobFlowResult = JobCompleted | JobJoined | JobInterrupted;
export type WorkerMessage = JobMessage | FollowUpMessage;
/**
 * PENDING → PROCESSING → COMPLETED | FAILED | CANCELLED; PROCESSING → RETRYING → PROCESSING.
 */
export type RequestStatus =
  "PENDING" | "PROCESSING" | "RETRYING" | "COMPLETED" | "FAILED" | "CANCELLED";
/**
 * `error.code` of a server message.
 */
export type ErrorCode =
  | "VALIDATION_ERROR"
  | "INVALID_ACTION"
  | "INVALID_MESSAGE"
  | "UNAUTHORIZED"
  | "FORBIDDEN"
  | "NOT_FOUND"
  | "DUPLICATE_REQUEST"
  | "PAYLOAD_TOO_LARGE"
  | "RATE_LIMITED"
  | "TIMEOUT"
  | "CANCELLED"
  | "PROCESSING_FAILED"
  | "SERVICE_UNAVAILABLE"
  | "INTERNAL_ERROR";
export type ClientRequest =
  | PingRequest
  | EchoRequest
  | HealthRequest
  | CreateUploadRequest
  | ProcessAssemblyRequest
  | GenerateReportRequest
  | DelayRequest
  | StatusRequest
  | SubscribeRequest
  | UnsubscribeRequest
  | CancelRequest;
export type Handshake = ConnectAnswer | ConnectRefusal;
export type ServerMessage =
  | ResponseMessage
  | AcknowledgmentMessage
  | ProgressMessage
  | CompleteMessage
  | ErrorMessage
  | PongMessage
  | PingMessage;

/**
 * Every published contract, by the name of its JSON Schema.
 */
export interface Contracts {
  "functions/check-active-job/input": CheckActiveJobInput;
  "functions/check-active-job/result": CheckActiveJobResult;
  "functions/claim/input": ClaimInput;
  "functions/claim/result": ClaimResult;
  "functions/connect/input": ConnectEvent;
  "functions/connect/result": ProxyAnswer;
  "functions/count-files/input": StreamEvent;
  "functions/count-files/result": CountFilesResult;
  "functions/deliver-webhook/input": DeliverWebhookEvent;
  "functions/deliver-webhook/result": DeliverWebhookResult;
  "functions/disconnect/input": DisconnectEvent;
  "functions/disconnect/result": ProxyAnswer;
  "functions/handle-timeout/input": HandleTimeoutEvent;
  "functions/handle-timeout/result": HandleTimeoutResult;
  "functions/processor/input": ProcessorEvent;
  "functions/processor/result": ProcessorResult;
  "functions/record-interruption/input": RecordInterruptionInput;
  "functions/record-interruption/result": RecordInterruptionResult;
  "functions/router/input": MessageEvent;
  "functions/router/result": ProxyAnswer;
  "functions/send-interrupt/input": SendInterruptInput;
  "functions/send-interrupt/result": SendInterruptResult;
  "functions/state-manager/input": StateManagerEvent;
  "functions/state-manager/operations/batch-update": BatchUpdateOperation;
  "functions/state-manager/operations/find-orphans": FindOrphansOperation;
  "functions/state-manager/operations/get-file-state": GetFileStateOperation;
  "functions/state-manager/operations/get-processing-timeline": GetProcessingTimelineOperation;
  "functions/state-manager/operations/get-stats": GetStatsOperation;
  "functions/state-manager/operations/query-by-status": QueryByStatusOperation;
  "functions/state-manager/operations/reset-stuck-files": ResetStuckFilesOperation;
  "functions/state-manager/operations/update-state": UpdateStateOperation;
  "functions/state-manager/operations/validate-consistency": ValidateConsistencyOperation;
  "functions/state-manager/result": ProxyAnswer;
  "functions/status/input": StatusEvent;
  "functions/status/result": ProxyAnswer;
  "functions/sweep-claims/input": ClaimSweepEvent;
  "functions/sweep-claims/result": ClaimsSwept;
  "http/assembly": AssemblyDocument;
  "http/assembly-page": AssemblyPage;
  "http/batch-answer": BatchAnswer;
  "http/batch-request": BatchRequest;
  "http/refusal": Refusal;
  "job-flow/input": JobFlowInput;
  "job-flow/preemption-cause": PreemptionCause;
  "job-flow/result": JobFlowResult;
  "queues/dead-letter": DeadLetter;
  "queues/interrupt": InterruptMessage;
  "queues/unreadable-record": UnreadableRecord;
  "queues/webhook-delivery": WebhookDelivery;
  "queues/worker": WorkerMessage;
  "socket/answers/cancel": Cancelled;
  "socket/answers/create-upload": CreatedUpload;
  "socket/answers/echo": Echo;
  "socket/answers/health": Health;
  "socket/answers/status": RequestState;
  "socket/answers/subscribe": Subscribed;
  "socket/answers/unsubscribe": Unsubscribed;
  "socket/client-message": ClientMessage;
  "socket/client-request": ClientRequest;
  "socket/handshake": Handshake;
  "socket/results/delay": DelayResult;
  "socket/results/echo": Echo;
  "socket/results/generate-report": Report;
  "socket/results/health": Health;
  "socket/results/process-assembly": AssemblyDocument;
  "socket/server-message": ServerMessage;
  "webhooks/body": AssemblyDocument;
}
/**
 * Does a job run in the workspace, and must a message of this thread interrupt it?
 */
export interface CheckActiveJobInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  threadId: string;
}
/**
 * Advisory: between this answer and the claim the job may end or another begin.
 */
export interface CheckActiveJobResult {
  hasActiveJob: boolean;
  sameThread: boolean;
  shouldInterrupt: boolean;
  reason: "none" | "free" | "expired" | "malformed" | "same_thread" | "other_thread";
  activeJob: ActiveJob | null;
  inputQueueName: string;
}
/**
 * A running job as its rivals may know it; an older row knows less. Epoch seconds.
 */
export interface ActiveJob {
  containerId: string | null;
  threadId: string | null;
  messageId: string | null;
  claimId: string | null;
  fence: number | null;
  expiresAt: number | null;
}
/**
 * Take the workspace. The same message and owner get the same claim again.
 */
export interface AcquireInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  operation?: "acquire";
  threadId: string;
  messageId: string;
  owner?: string | null;
  ttlSeconds?: number | null;
  minIntervalSeconds?: number | null;
}
/**
 * Keep a claim for `ttlSeconds` from now.
 */
export interface RenewInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  operation: "renew";
  claimId: string;
  fence: number;
  ttlSeconds?: number | null;
}
/**
 * Give a claim back.
 */
export interface ReleaseInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  operation: "release";
  claimId: string;
  fence: number;
  reason?: string | null;
}
/**
 * The workspace is the caller's until `expiresAt` (epoch seconds).
 *
 * The fence grows with every claim of a workspace: pass it to whatever the job writes.
 */
export interface Claimed {
  claimed: true;
  claimId: string;
  fence: number;
  containerId: string;
  expiresAt: number;
}
/**
 * `same_thread`: the message may join the holder's job, whose claim was kept alive.
 */
export interface NotClaimed {
  claimed: false;
  reason: "held" | "same_thread";
  holder: ClaimHolder;
}
/**
 * Who has the workspace, as a loser may know it.
 */
export interface ClaimHolder {
  threadId: string | null;
  messageId: string | null;
  containerId: string | null;
  claimId: string | null;
  fence: number | null;
  expiresInSeconds: number | null;
}
/**
 * The last claim is younger than `minIntervalSeconds`.
 */
export interface ClaimedTooSoon {
  claimed: false;
  reason: "rate_limited";
  retryAfterSeconds: number;
}
/**
 * The claim now lasts until `expiresAt` (epoch seconds).
 */
export interface Renewed {
  renewed: true;
  expiresAt: number;
}
/**
 * The claim is gone, and stays so.
 */
export interface NotRenewed {
  renewed: false;
  reason: "absent" | "released" | "expired" | "superseded";
}
/**
 * The workspace is free; `repeated`: it was before.
 */
export interface Released {
  released: true;
  repeated: boolean;
}
/**
 * The claim was not the caller's to release.
 */
export interface NotReleased {
  released: false;
  reason: "absent" | "expired" | "superseded";
}
/**
 * A handshake: the token is in the query `Authorization` or `token`, or in the header.
 */
export interface ConnectEvent {
  requestContext: ConnectionContext;
  headers?: {
    [k: string]: string;
  } | null;
  queryStringParameters?: {
    [k: string]: string;
  } | null;
}
/**
 * The connection that an event of the WebSocket API is about.
 */
export interface ConnectionContext {
  connectionId: string;
  routeKey: string;
  domainName?: string | null;
  stage?: string | null;
  identity?: Identity | null;
}
/**
 * Where a client connects from.
 */
export interface Identity {
  sourceIp?: string | null;
  userAgent?: string | null;
}
/**
 * What API Gateway passes on; `body` is JSON text, or empty.
 */
export interface ProxyAnswer {
  statusCode: number;
  headers?: {
    [k: string]: string;
  } | null;
  multiValueHeaders?: {
    [k: string]: string[];
  } | null;
  body?: string | null;
  isBase64Encoded?: false;
}
/**
 * A batch of a table's stream.
 */
export interface StreamEvent {
  Records: StreamRecord[];
}
/**
 * An item that was written or removed.
 */
export interface StreamRecord {
  dynamodb: StreamChange;
  eventName: "INSERT" | "MODIFY" | "REMOVE";
}
/**
 * An item as it is stored, in DynamoDB's notation.
 */
export interface StreamChange {
  SequenceNumber: string;
  NewImage?: {
    [k: string]: {
      [k: string]: unknown;
    };
  } | null;
}
/**
 * Asks deliver-webhook for one delivery now; its caller has checked who may ask for it.
 */
export interface DeliveryOnDemand {
  assembly_id: string;
}
/**
 * A batch of SQS messages.
 */
export interface QueueEvent {
  /**
   * @minItems 1
   */
  Records: QueueRecord[];
}
/**
 * A message of the webhook queue; `body` is a WebhookDelivery as JSON text.
 */
export interface QueueRecord {
  messageId: string;
  receiptHandle: string;
  body: string;
  attributes: {
    [k: string]: string;
  };
  eventSource: "aws:sqs";
}
/**
 * What a delivery on demand came to, as the document shows it.
 */
export interface DeliveryResult {
  webhook: AssemblyWebhook;
}
/**
 * What became of the notification.
 *
 * A stored document has `status` and what the last attempt came to. The answer to a trigger adds
 * `delivered`, `status_code` and `error` of this delivery, whose own `attempts` it counts; it has
 * no `status` where no webhook is configured. `missing` names the settings that do not exist yet.
 */
export interface AssemblyWebhook {
  status?: WebhookStatus;
  attempts?: number;
  last_response_code?: number;
  last_attempt_at?: string;
  delivered?: boolean;
  status_code?: number;
  error?: string;
  missing?: string[];
}
/**
 * Why nothing was delivered on demand; `retry_after` in seconds, for `too_soon`.
 */
export interface DeliveryRefusal {
  refused: "not_found" | "not_ended" | "too_soon";
  retry_after?: number;
}
/**
 * What of a batch was not dealt with.
 */
export interface BatchFailures {
  batchItemFailures: ItemFailure[];
}
/**
 * A record that is to come again.
 */
export interface ItemFailure {
  itemIdentifier: string;
}
/**
 * A connection that was closed, by whichever side.
 */
export interface DisconnectEvent {
  requestContext: ConnectionContext;
}
/**
 * Clean up after a job that did not end by itself.
 */
export interface HandleTimeoutInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  messageId: string;
  kind: "timeout" | "heartbeat_lost" | "forced";
  threadId?: string | null;
  claimId?: string | null;
  fence?: number | null;
  error?: unknown;
  cause?: unknown;
  executionArn?: unknown;
}
/**
 * EventBridge's word of an execution that has ended.
 */
export interface ExecutionEnded {
  "detail-type": "Step Functions Execution Status Change";
  detail: ExecutionDetail;
}
/**
 * An execution of the job flow that has ended; `input` is JSON text.
 */
export interface ExecutionDetail {
  executionArn: string;
  status: string;
  input?: string | null;
  error?: string | null;
  cause?: string | null;
}
/**
 * What was done, by this run or an earlier one.
 *
 * `superseded`: a newer claim holds the workspace, and was left alone.
 */
export interface HandleTimeoutResult {
  released: boolean;
  superseded: boolean;
  recorded: boolean;
  duplicate: boolean;
  recordId: string | null;
  dlqMessageId: string | null;
}
/**
 * The schedule that looks for requests whose lease has run out.
 */
export interface SweepEvent {
  sweep: "leases";
}
/**
 * How many overdue requests became what; `unread` are shards of the index, not requests.
 */
export interface Swept {
  swept: {
    [k: string]: number;
  };
}
/**
 * Put an interruption on record; `messageId` is that of the interrupted job.
 *
 * What is missing is taken from a cause that is JSON.
 */
export interface RecordInterruptionInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  messageId: string;
  kind?: "interruption" | "timeout" | "heartbeat_lost" | "forced";
  interruptedClaimId?: string | null;
  interruptedContainer?: string | null;
  newThreadId?: string | null;
  interruptingMessageId?: string | null;
  cause?: unknown;
}
/**
 * `duplicate`: the record was there before.
 */
export interface RecordInterruptionResult {
  recorded: true;
  duplicate: boolean;
  recordId: string;
}
/**
 * One message; `body` is its text.
 */
export interface MessageEvent {
  requestContext: ConnectionContext;
  body?: string | null;
}
/**
 * Ask the worker of a claim to stop in favour of a message.
 */
export interface SendInterruptInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  target: NumberedTarget | OlderTarget;
  newThreadId: string;
  interruptingMessageId: string;
  reason?: string | null;
}
/**
 * The claim to interrupt.
 */
export interface NumberedTarget {
  containerId?: string | null;
  threadId?: string | null;
  expiresAt?: number | null;
  claimId: string;
  fence: number;
}
/**
 * The claim of an older writer, which no interrupt can name.
 */
export interface OlderTarget {
  containerId?: string | null;
  threadId?: string | null;
  expiresAt?: number | null;
  claimId: null;
  fence: null;
}
/**
 * The interrupt lies in the worker's queue.
 */
export interface InterruptSent {
  sent: true;
  interruptId: string;
  queueUrl: string;
  messageId: string;
}
/**
 * There was nothing to interrupt, or no claim that an interrupt could name.
 */
export interface InterruptNotSent {
  sent: false;
  reason: "expired" | "same_thread" | "unaddressable";
  interruptId: string | null;
}
/**
 * Up to a hundred changes, each of a different file.
 */
export interface BatchUpdateOperation {
  /**
   * @minItems 1
   * @maxItems 100
   */
  files: FileChange[];
  operation: "batch_update";
  source?: string | null;
}
/**
 * A new status for one file; a step that the pipeline does not have needs `force`.
 */
export interface FileChange {
  date_prefix: string;
  file_key: string;
  new_status: FileStatus;
  additional_fields?: {
    [k: string]: unknown;
  };
  expected_status?: FileStatus | null;
  force?: boolean;
  reason?: string | null;
  changed_by?: string | null;
}
/**
 * Files that stay as they are unless an operator acts.
 */
export interface FindOrphansOperation {
  next_token?: string | null;
  max_processing_hours?: number;
  operation: "find_orphans";
  source?: string | null;
}
/**
 * One row, or the files of a date.
 */
export interface GetFileStateOperation {
  next_token?: string | null;
  date_prefix: string;
  file_key?: string | null;
  limit?: number;
  operation?: "get_file_state" | null;
  source?: string | null;
}
/**
 * The history of a file.
 */
export interface GetProcessingTimelineOperation {
  date_prefix: string;
  file_key: string;
  operation: "get_processing_timeline";
  source?: string | null;
}
/**
 * Files by status: from the counters, or counted with `exact` or a date.
 */
export interface GetStatsOperation {
  next_token?: string | null;
  date_prefix?: string | null;
  exact?: boolean;
  operation: "get_stats";
  source?: string | null;
}
/**
 * Files of a status, oldest date first.
 */
export interface QueryByStatusOperation {
  next_token?: string | null;
  status: FileStatus;
  limit?: number;
  date_range?: DateRange | null;
  operation: "query_by_status";
  source?: string | null;
}
/**
 * Dates, both included; one side may be open.
 */
export interface DateRange {
  start?: string | null;
  end?: string | null;
}
/**
 * Stuck files to set back to pending; by default they are only listed.
 */
export interface ResetStuckFilesOperation {
  next_token?: string | null;
  max_processing_hours?: number;
  /**
   * @minItems 1
   * @maxItems 3
   */
  statuses?: ("processing" | "manifested" | "failed")[];
  dry_run?: boolean;
  reason?: string | null;
  operation: "reset_stuck_files";
  source?: string | null;
}
/**
 * The request of `update_state`.
 */
export interface UpdateStateOperation {
  date_prefix: string;
  file_key: string;
  new_status: FileStatus;
  additional_fields?: {
    [k: string]: unknown;
  };
  expected_status?: FileStatus | null;
  force?: boolean;
  reason?: string | null;
  changed_by?: string | null;
  operation: "update_state";
  source?: string | null;
}
/**
 * A date's rows to compare with the buckets.
 */
export interface ValidateConsistencyOperation {
  next_token?: string | null;
  date_prefix: string;
  operation: "validate_consistency";
  source?: string | null;
}
/**
 * A direct invoke about one assembly; IAM vouches for the `userId`.
 */
export interface StatusInvocation {
  assemblyId: string;
  userId?: string | null;
  triggerWebhook?: boolean | null;
}
/**
 * A direct invoke about several assemblies; with `assemblyId` as well it is about that one.
 */
export interface BatchInvocation {
  /**
   * @maxItems 100
   */
  assemblyIds: string[];
  userId?: string | null;
}
/**
 * An HTTP request by way of API Gateway (1 and 2), a Function URL or a load balancer.
 */
export interface HttpEvent {
  requestContext: HttpContext;
  rawPath?: string | null;
  path?: string | null;
  httpMethod?: string | null;
  pathParameters?: {
    [k: string]: string;
  } | null;
  headers?: {
    [k: string]: string;
  } | null;
  multiValueHeaders?: {
    [k: string]: string[];
  } | null;
  queryStringParameters?: {
    [k: string]: string;
  } | null;
  multiValueQueryStringParameters?: {
    [k: string]: string[];
  } | null;
  body?: string | null;
  isBase64Encoded?: boolean | null;
}
/**
 * Version 2 names the method here.
 */
export interface HttpContext {
  http?: {
    [k: string]: unknown;
  } | null;
  authorizer?: {
    [k: string]: unknown;
  } | null;
}
/**
 * The schedule that looks for claims whose execution has ended.
 */
export interface ClaimSweepEvent {
  sweep: "claims";
}
/**
 * Claims of executions that are old enough, those that were asked about, those freed.
 */
export interface ClaimsSwept {
  held: number;
  asked: number;
  freed: number;
}
/**
 * The public state of a job.
 *
 * Times are ISO-8601 UTC with milliseconds; `execution_duration` is in seconds, sizes in bytes,
 * `progress_pct` 0–100. Never both `ok` and `error`: an unfinished document has neither, or a
 * running `ok` code where the deployment asks for extended codes.
 */
export interface AssemblyDocument {
  assembly_id: string;
  ok?: OkCode;
  error?: string;
  message: string;
  uploads?: AssemblyUpload[];
  results?: {
    [k: string]: AssemblyResult[];
  };
  bytes_expected?: number;
  bytes_received?: number;
  bytes_usage?: number;
  execution_duration?: number;
  execution_start?: string;
  last_job_completed?: string;
  template_id: string;
  branch?: string;
  user?: AssemblyUser;
  created_at: string;
  updated_at: string;
  progress_pct?: number;
  steps_total?: number;
  steps_completed?: number;
  current_step?: string;
  warnings?: string[];
  webhook?: AssemblyWebhook;
  request_id?: string;
  stalled?: boolean;
}
/**
 * One input file; `id` is `upload_<uuid>`.
 */
export interface AssemblyUpload {
  id: string;
  name: string;
  basename: string;
  ext: string;
  size: number;
  mime: string;
  field: string;
  meta?: {
    [k: string]: unknown;
  };
  md5hash: string;
}
/**
 * One output file; `id` is `result_<uuid>`, `original_id` the upload that it came from.
 */
export interface AssemblyResult {
  id: string;
  name: string;
  basename: string;
  ext: string;
  size: number;
  mime: string;
  field: string;
  meta?: {
    [k: string]: unknown;
  };
  original_id: string;
  ssl_url: string;
  md5hash?: string | null;
}
/**
 * Who a job belongs to.
 */
export interface AssemblyUser {
  userId: string;
}
/**
 * The caller's own assemblies, newest first; `next` is null on the last page.
 */
export interface AssemblyPage {
  assemblies: AssemblySummary[];
  next: string | null;
}
/**
 * An assembly in a list: its document without files and warnings.
 */
export interface AssemblySummary {
  assembly_id: string;
  ok?: OkCode;
  error?: string;
  message: string;
  bytes_expected?: number;
  bytes_received?: number;
  bytes_usage?: number;
  execution_duration?: number;
  execution_start?: string;
  last_job_completed?: string;
  template_id: string;
  branch?: string;
  user?: AssemblyUser;
  created_at: string;
  updated_at: string;
  progress_pct?: number;
  steps_total?: number;
  steps_completed?: number;
  current_step?: string;
  webhook?: AssemblyWebhook;
  request_id?: string;
  stalled?: boolean;
}
/**
 * Documents by id; null for what is not there or not the caller's.
 */
export interface BatchAnswer {
  statuses: {
    [k: string]: AssemblyDocument | null;
  };
}
/**
 * The body of `POST /status/batch`.
 */
export interface BatchRequest {
  /**
   * @maxItems 100
   */
  assemblyIds: string[];
}
/**
 * Why a request is refused. `request_id` is that of the invocation, for questions about it;
 * `fits` is how many of a batch's ids, from the first on, one answer can hold.
 */
export interface Refusal {
  error: string;
  problems?: Problem[];
  assembly_id?: string;
  request_id?: string;
  fits?: number;
}
/**
 * One field at fault.
 */
export interface Problem {
  field: string;
  message: string;
}
/**
 * One message for a workspace; the execution's name is that of `execution_name`.
 *
 * `instruction` takes at most 255 KB of JSON. `timeoutSeconds` is shortened to
 * end before the claim of `claimTtlSeconds` does, and `heartbeatSeconds` to be less than that.
 */
export interface JobFlowInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  threadId: string;
  messageId: string;
  instruction: unknown;
  attachments?: Attachment[] | null;
  claimTtlSeconds?: number;
  timeoutSeconds?: number;
  heartbeatSeconds?: number;
  maxClaimTries?: number;
  claimWaitSeconds?: number;
}
/**
 * An object that a message brings along.
 */
export interface Attachment {
  bucket: string;
  key: string;
}
/**
 * The cause with which a worker tells the flow that it made room, as JSON text.
 */
export interface PreemptionCause {
  interruptId: string;
  interruptingMessageId: string;
  newThreadId: string;
  partial: unknown;
}
/**
 * The worker ended the job; `result` is what it said; null with a `resultObject`.
 */
export interface JobCompleted {
  outcome: "Completed";
  job: JobIds;
  result: unknown;
  resultObject?: ResultObject;
}
/**
 * The message that an execution was started for.
 */
export interface JobIds {
  projectUserId: string;
  threadId: string;
  messageId: string;
}
/**
 * Where a result of more than 255 KB is, for thirty days.
 */
export interface ResultObject {
  bucket: string;
  key: string;
}
/**
 * The message went to the job of its own thread.
 */
export interface JobJoined {
  outcome: "Joined";
  job: JobIds;
  holder: ClaimHolder;
}
/**
 * Another thread's message took the workspace; `cause` is a PreemptionCause as JSON text.
 */
export interface JobInterrupted {
  outcome: "Interrupted";
  job: JobIds;
  cause: string;
}
/**
 * A job that did not end by itself, for an operator. Its id is the same for every sending.
 *
 * `repeated`: a letter of this id may be in the queue already.
 */
export interface DeadLetter {
  type: "JOB_TIMEOUT";
  deadLetterId: string;
  projectUserId: string;
  messageId: string;
  threadId: string | null;
  claimId: string | null;
  fence: number | null;
  kind: "timeout" | "heartbeat_lost" | "forced";
  error: string | null;
  cause: string | null;
  executionArn: string | null;
  timestamp: string;
  repeated?: boolean;
}
/**
 * Asks the worker of one claim to stop. `expiresAt` (epoch seconds): then it is moot.
 */
export interface InterruptMessage {
  type: "INTERRUPT";
  interruptId: string;
  containerId: string | null;
  target: InterruptedClaim;
  newThreadId: string;
  interruptingMessageId: string;
  timestamp: string;
  reason: string;
  expiresAt: number;
}
/**
 * The claim that an interrupt is for; no other job obeys it.
 */
export interface InterruptedClaim {
  projectUserId: string;
  claimId: string;
  fence: number;
  containerId: string | null;
  threadId: string | null;
}
/**
 * A record of the requests' stream that could not be read, kept for an operator.
 *
 * The text is cut at 250,000 characters; then it is not valid JSON.
 */
export interface UnreadableRecord {
  error: string;
  record: unknown;
}
/**
 * An ended assembly whose webhook is due; `execution` tells a replay from the first run.
 */
export interface WebhookDelivery {
  assembly_id: string;
  execution?: number | null;
  template_id?: string | null;
}
/**
 * A job for the workspace's worker, which heartbeats and ends it by the task token.
 *
 * `expiresAt` (epoch seconds) is when the claim ends unless the worker renews it. A result of more
 * than 255 KB is put at `resultLocation`, and sent as `{"resultObject": {"bucket", "key"}}`.
 */
export interface JobMessage {
  projectUserId: string;
  threadId: string;
  messageId: string;
  claimId: string;
  fence: number;
  instruction: unknown;
  instructionObject?: ObjectPlace | null;
  type: "JOB";
  taskToken: string;
  containerId: string;
  attachments: (FoundAttachment | MissingAttachment)[];
  heartbeatSeconds: number;
  claimTtlSeconds: number;
  expiresAt: number;
  resultLocation?: ObjectPlace | null;
}
/**
 * An object in the stage's files bucket.
 */
export interface ObjectPlace {
  bucket: string;
  key: string;
}
/**
 * An attachment that is there; `size` in bytes.
 */
export interface FoundAttachment {
  bucket: string;
  key: string;
  size: number;
  ok: true;
}
/**
 * An attachment that could not be read, and the error's name.
 */
export interface MissingAttachment {
  bucket: string;
  key: string;
  ok: false;
  error: string;
}
/**
 * A further message for the thread whose job runs; claim and fence are that job's.
 */
export interface FollowUpMessage {
  projectUserId: string;
  threadId: string;
  messageId: string;
  claimId: string;
  fence: number;
  instruction: unknown;
  instructionObject?: ObjectPlace | null;
  type: "FOLLOW_UP";
  attachments: FollowUpAttachment[];
}
/**
 * An object that a follow-up names; it may not exist.
 */
export interface FollowUpAttachment {
  bucket: string;
  key: string;
}
/**
 * `cancelling`: its worker was asked. Otherwise how the request ended.
 */
export interface Cancelled {
  request_id: string;
  status: "cancelled" | "cancelling" | "completed" | "failed";
}
/**
 * The uploads of one assembly; `completed`: the same job has already ended well.
 */
export interface CreatedUpload {
  assembly_id: string;
  completed: boolean;
  expires_at: string;
  uploads: PresignedUpload[];
}
/**
 * Where one file goes: a PUT of exactly the announced bytes, with these headers.
 */
export interface PresignedUpload {
  key: string;
  name: string;
  size: number;
  mime: string;
  md5hash: string;
  method: "PUT";
  url: string;
  headers: {
    [k: string]: string;
  };
}
/**
 * The payload as it came.
 */
export interface Echo {
  echo: {
    [k: string]: unknown;
  };
  action: "echo";
  received_at: string;
}
/**
 * What was tried, by name: `requests_table`, or `queue` when the action was queued.
 */
export interface Health {
  status: "healthy";
  version: string;
  checks: {
    [k: string]: HealthCheck;
  };
}
/**
 * One part of the service that was tried, and how long that took.
 */
export interface HealthCheck {
  status: "healthy";
  latency_ms: number;
}
/**
 * A request as it is stored; `seq` is that of its last message.
 *
 * `result_omitted`: the result is too large for a socket message.
 */
export interface RequestState {
  request_id: string;
  action: string;
  status: RequestStatus;
  attempts: number;
  assembly_id?: string;
  cancel_requested: boolean;
  created_at: string;
  started_at?: string;
  updated_at: string;
  ended_at?: string;
  seq: number;
  progress: StoredProgress | null;
  error?: ErrorBody;
  result?: unknown;
  result_omitted?: boolean;
}
/**
 * The last progress of a request.
 */
export interface StoredProgress {
  seq: number;
  percentage: number;
  message: string;
  at: string;
}
/**
 * What went wrong; `details` lists faults as `{field, message}`.
 */
export interface ErrorBody {
  code: ErrorCode;
  message: string;
  details?:
    | {
        [k: string]: unknown;
      }[]
    | {
        [k: string]: unknown;
      };
  retryable: boolean;
  retry_after_ms?: number;
}
/**
 * The state now; `subscribed` is false for a request that has ended.
 */
export interface Subscribed {
  request_id: string;
  action: string;
  status: RequestStatus;
  attempts: number;
  assembly_id?: string;
  cancel_requested: boolean;
  created_at: string;
  started_at?: string;
  updated_at: string;
  ended_at?: string;
  seq: number;
  progress: StoredProgress | null;
  error?: ErrorBody;
  result?: unknown;
  result_omitted?: boolean;
  subscribed: boolean;
}
/**
 * Ending a subscription that is not there is success.
 */
export interface Unsubscribed {
  request_id: string;
  was_subscribed: boolean;
}
/**
 * A request: `id` is the client's idempotency key, generated when absent.
 *
 * `metadata` is a map of strings; `{"mode": "async"}` queues an action that is otherwise
 * answered at once, `{"on_disconnect": "cancel"}` ends the job with its connection.
 */
export interface ClientMessage {
  id?: string | null;
  action: string;
  payload?: {
    [k: string]: unknown;
  };
  metadata?: {
    [k: string]: string;
  };
}
/**
 * Keeps the connection awake.
 */
export interface PingRequest {
  id?: string | null;
  action: "ping";
  payload?: {
    [k: string]: unknown;
  };
  metadata?: SyncMetadata;
}
/**
 * Of an action that is answered at once.
 */
export interface SyncMetadata {
  mode?: "sync";
  on_disconnect?: "detach" | "cancel";
  [k: string]: string | "sync" | "detach" | "cancel" | undefined;
}
/**
 * Gives the payload back, at once or, with `mode: async`, by way of the queue.
 */
export interface EchoRequest {
  id?: string | null;
  action: "echo";
  payload?: {
    [k: string]: unknown;
  };
  metadata?: Metadata;
}
/**
 * How a request is run; further names hold strings, and mean nothing to the service.
 */
export interface Metadata {
  mode?: "sync" | "async";
  on_disconnect?: "detach" | "cancel";
  [k: string]: string | "sync" | "async" | "detach" | "cancel" | undefined;
}
/**
 * Whether the service works, at once or, with `mode: async`, the whole path of a job.
 */
export interface HealthRequest {
  id?: string | null;
  action: "health";
  payload?: {
    [k: string]: unknown;
  };
  metadata?: Metadata;
}
/**
 * One presigned PUT for each input of an assembly.
 */
export interface CreateUploadRequest {
  id?: string | null;
  action: "create_upload";
  payload: CreateUpload;
  metadata?: SyncMetadata;
}
/**
 * Presigned PUTs for the inputs of one assembly.
 */
export interface CreateUpload {
  template_id: string;
  /**
   * @minItems 1
   * @maxItems 1000
   */
  files: UploadFile[];
  fields?: {
    [k: string]: unknown;
  };
}
/**
 * A file that the client is about to upload; `md5hash` in hex or as a Content-MD5.
 */
export interface UploadFile {
  name: string;
  size: number;
  mime?: string;
  md5hash: string;
}
/**
 * Runs a template over uploaded files; ends with the assembly document.
 */
export interface ProcessAssemblyRequest {
  id?: string | null;
  action: "process_assembly";
  payload: ProcessAssembly;
  metadata?: AsyncMetadata;
}
/**
 * Run a template over uploaded files.
 */
export interface ProcessAssembly {
  template_id: string;
  /**
   * @minItems 1
   * @maxItems 1000
   */
  uploads: UploadedFile[];
  fields?: {
    [k: string]: unknown;
  };
}
/**
 * A file that lies in the bucket under `key`.
 */
export interface UploadedFile {
  name: string;
  size: number;
  mime?: string;
  md5hash: string;
  key: string;
}
/**
 * Of an action that is always queued.
 */
export interface AsyncMetadata {
  mode?: "async";
  on_disconnect?: "detach" | "cancel";
  [k: string]: string | "async" | "detach" | "cancel" | undefined;
}
/**
 * A report over the caller's tenant; needs the permission `reports`.
 */
export interface GenerateReportRequest {
  id?: string | null;
  action: "generate_report";
  payload: GenerateReport;
  metadata?: AsyncMetadata;
}
/**
 * A report over the caller's tenant; both dates are included.
 */
export interface GenerateReport {
  start_date: string;
  end_date: string;
  format?: "csv" | "json";
  group_by?: "day" | "action" | "status";
}
/**
 * A diagnostic job that waits and reports.
 */
export interface DelayRequest {
  id?: string | null;
  action: "delay";
  payload?: Delay;
  metadata?: AsyncMetadata;
}
/**
 * A job that only waits and reports; `fail_at` is the step at which it fails.
 */
export interface Delay {
  seconds?: number;
  steps?: number;
  fail_at?: number | null;
  transient?: boolean;
}
/**
 * The caller's request as it is stored.
 */
export interface StatusRequest {
  id?: string | null;
  action: "status";
  payload: RequestReference;
  metadata?: SyncMetadata;
}
/**
 * Names one request of the caller.
 */
export interface RequestReference {
  request_id: string;
}
/**
 * The state of a request, and its messages from now on.
 */
export interface SubscribeRequest {
  id?: string | null;
  action: "subscribe";
  payload: Subscribe;
  metadata?: SyncMetadata;
}
/**
 * Listen to a request; messages up to `since_seq` are known.
 *
 * `user_id` names another member of the caller's tenant; it needs permission `tenant:read`.
 */
export interface Subscribe {
  request_id: string;
  since_seq?: number | null;
  user_id?: string | null;
}
/**
 * Ends a subscription.
 */
export interface UnsubscribeRequest {
  id?: string | null;
  action: "unsubscribe";
  payload: Unsubscribe;
  metadata?: SyncMetadata;
}
/**
 * Stop listening to a request.
 */
export interface Unsubscribe {
  request_id: string;
  user_id?: string | null;
}
/**
 * Ends a waiting request at once, and asks the worker of a running one.
 */
export interface CancelRequest {
  id?: string | null;
  action: "cancel";
  payload: RequestReference;
  metadata?: SyncMetadata;
}
/**
 * The body that answers a handshake which was accepted.
 */
export interface ConnectAnswer {
  message: "Connected successfully";
}
/**
 * The body that answers a handshake which was not.
 */
export interface ConnectRefusal {
  error: string;
  code: "UNAUTHORIZED" | "RATE_LIMITED" | "INTERNAL_ERROR";
}
/**
 * What a `delay` that was not asked to fail ends with.
 */
export interface DelayResult {
  seconds: number;
  steps: number;
}
/**
 * A finished report behind a link; `size` in bytes.
 */
export interface Report {
  format: "csv" | "json";
  rows: number;
  size: number;
  sha256: string;
  url: string;
}
/**
 * The answer of an action that ran at once.
 */
export interface ResponseMessage {
  request_id?: string;
  timestamp: string;
  type: "response";
  success: boolean;
  data: {
    [k: string]: unknown;
  };
}
/**
 * The request is stored; `complete` or `error` follows.
 */
export interface AcknowledgmentMessage {
  request_id?: string;
  timestamp: string;
  type: "acknowledgment";
  status: string;
  message: string;
  assembly_id?: string;
}
/**
 * The progress of a request; `seq` strictly increases within it, `percentage` never falls.
 */
export interface ProgressMessage {
  request_id?: string;
  timestamp: string;
  type: "progress";
  seq: number;
  percentage: number;
  message: string;
  metadata?: {
    [k: string]: unknown;
  };
}
/**
 * The end of a request that succeeded.
 */
export interface CompleteMessage {
  request_id?: string;
  timestamp: string;
  type: "complete";
  seq: number;
  success: boolean;
  result: {
    [k: string]: unknown;
  };
}
/**
 * With `seq`: the end of a request that did not succeed. Without: the message was refused.
 */
export interface ErrorMessage {
  request_id?: string;
  timestamp: string;
  type: "error";
  seq?: number;
  error: ErrorBody;
}
/**
 * The answer to `ping`.
 */
export interface PongMessage {
  request_id?: string;
  timestamp: string;
  type: "pong";
}
/**
 * A probe from the server; needs no answer.
 */
export interface PingMessage {
  request_id?: string;
  timestamp: string;
  type: "ping";
}
