// Made by `jobplane schema` from the models in libs/models; not to be edited.

export type ClaimInput = AcquireInput | RenewInput | ReleaseInput;
export type ClaimResult =
  Claimed | NotClaimed | ClaimedTooSoon | Renewed | NotRenewed | TakenOver | Released | NotReleased;
export type AnyConnectEvent = ConnectEvent | MessageEvent;
export type CountFilesResult = null;
export type DeliverWebhookEvent = DeliveryOnDemand | QueueEvent;
export type DeliverWebhookResult = DeliveryResult | DeliveryRefusal | BatchFailures;
export type WebhookStatus =
  "pending" | "delivered" | "retrying" | "failed" | "disabled" | "unsigned_refused" | "refused";
export type DispatchEvent = LaneSweepEvent | StreamEvent;
export type DispatchResult = BatchFailures | LanesSwept;
export type HandleTimeoutEvent = HandleTimeoutInput | ExecutionEnded;
export type ProcessorEvent = QueueEvent | SweepEvent;
export type ProcessorResult = BatchFailures | Swept;
export type ReportJobEvent = BeginJobInput | ReportJobInput | SettleJobInput | ExecutionEnded;
export type ReportJobResult = JobBegun | JobReported | JobSettled;
export type RouterEvent = MessageEvent | MessagesOfCaller;
export type RouterResult = ProxyAnswer | Answers;
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
  | "CALLBACK_USED"
  | "CALLBACK_OVER"
  | "PAYLOAD_TOO_LARGE"
  | "RATE_LIMITED"
  | "TIMEOUT"
  | "CANCELLED"
  | "PROCESSING_FAILED"
  | "INTERRUPTED"
  | "TIMED_OUT"
  | "WORKSPACE_BUSY"
  | "SERVICE_UNAVAILABLE"
  | "INTERNAL_ERROR";
export type JobFlowResult = JobCompleted | JobJoined | JobCancelled | JobInterrupted;
export type WorkerMessage = JobMessage | FollowUpMessage;
/**
 * PENDING → PROCESSING → COMPLETED | FAILED | CANCELLED; PROCESSING → RETRYING → PROCESSING.
 *
 * SCHEDULED → PROCESSING | PENDING, when it is due.
 */
export type RequestStatus =
  "SCHEDULED" | "PENDING" | "PROCESSING" | "RETRYING" | "COMPLETED" | "FAILED" | "CANCELLED";
export type ClientRequest =
  | PingRequest
  | EchoRequest
  | HealthRequest
  | CreateUploadRequest
  | ProcessAssemblyRequest
  | GenerateReportRequest
  | DelayRequest
  | CountRequest
  | InstructRequest
  | StatusRequest
  | SubscribeRequest
  | UnsubscribeRequest
  | AuthenticateRequest
  | CallbackRequest
  | CancelRequest
  | ReplayRequest;
export type Handshake = ConnectAnswer | ConnectRefusal;
export type ServerMessage =
  | ResponseMessage
  | AcknowledgmentMessage
  | ProgressMessage
  | EventMessage
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
  "functions/connect/input": AnyConnectEvent;
  "functions/connect/result": ProxyAnswer;
  "functions/count-files/input": StreamEvent;
  "functions/count-files/result": CountFilesResult;
  "functions/deliver-webhook/input": DeliverWebhookEvent;
  "functions/deliver-webhook/result": DeliverWebhookResult;
  "functions/disconnect/input": DisconnectEvent;
  "functions/disconnect/result": ProxyAnswer;
  "functions/dispatch/input": DispatchEvent;
  "functions/dispatch/result": DispatchResult;
  "functions/handle-timeout/input": HandleTimeoutEvent;
  "functions/handle-timeout/result": HandleTimeoutResult;
  "functions/intake/input": MessageArrived;
  "functions/intake/result": IntakeResult;
  "functions/jobs/input": HttpEvent;
  "functions/jobs/result": ProxyAnswer;
  "functions/processor/input": ProcessorEvent;
  "functions/processor/result": ProcessorResult;
  "functions/record-interruption/input": RecordInterruptionInput;
  "functions/record-interruption/result": RecordInterruptionResult;
  "functions/report-job/input": ReportJobEvent;
  "functions/report-job/result": ReportJobResult;
  "functions/router/input": RouterEvent;
  "functions/router/result": RouterResult;
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
  "functions/upload-parts/input": HttpEvent;
  "functions/upload-parts/result": ProxyAnswer;
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
  "queues/queued-request": QueuedRequest;
  "queues/unreadable-record": UnreadableRecord;
  "queues/webhook-delivery": WebhookDelivery;
  "queues/worker": WorkerMessage;
  "socket/answers/authenticate": Authenticated;
  "socket/answers/callback": CallbackReturned;
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
  "socket/results/count": CountResult;
  "socket/results/delay": DelayResult;
  "socket/results/echo": Echo;
  "socket/results/generate-report": Report;
  "socket/results/health": Health;
  "socket/results/instruct": Instructed;
  "socket/results/process-assembly": AssemblyDocument;
  "socket/server-message": ServerMessage;
  "webhooks/body": AssemblyDocument;
}
/**
 * Asks whether a job runs in the workspace, and whether this thread must interrupt it.
 */
export interface CheckActiveJobInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  threadId: string;
}
/**
 * The state of the workspace. It may change before a claim: the job may end, or one begin.
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
 * The running job; a row of an older version has fewer fields. Times in epoch seconds.
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
 * Asks for the claim of a workspace. The same message and owner get the same claim again.
 *
 * `taker` and `takerSeconds` are those of renew.
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
  taker?: string | null;
  takerSeconds?: number | null;
}
/**
 * Renews a claim for `ttlSeconds` from now.
 *
 * With `taker`, the name of a running worker, it takes the claim's job over: if another taker had
 * the job, the fence grows, and that one can't renew any more. For `takerSeconds` after a renewal
 * no other worker can take over.
 */
export interface RenewInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  operation: "renew";
  claimId: string;
  fence: number;
  ttlSeconds?: number | null;
  taker?: string | null;
  takerSeconds?: number | null;
}
/**
 * Releases a claim; without a `taker`, whichever worker has its job.
 */
export interface ReleaseInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  operation: "release";
  claimId: string;
  fence: number;
  reason?: string | null;
  taker?: string | null;
}
/**
 * The caller has the claim of the workspace until `expiresAt` (epoch seconds).
 *
 * The fence grows with each claim of a workspace: pass it with every write of the job.
 */
export interface Claimed {
  claimed: true;
  claimId: string;
  fence: number;
  containerId: string;
  expiresAt: number;
}
/**
 * The claim was refused. `same_thread`: send the message to the holder's job, whose claim was
 * renewed.
 */
export interface NotClaimed {
  claimed: false;
  reason: "held" | "same_thread";
  holder: ClaimHolder;
}
/**
 * The holder of the workspace, for a caller that did not get the claim.
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
 * The claim was refused: the last one is less than `minIntervalSeconds` old.
 */
export interface ClaimedTooSoon {
  claimed: false;
  reason: "rate_limited";
  retryAfterSeconds: number;
}
/**
 * The claim now ends at `expiresAt` (epoch seconds). A taker's fence is `fence`.
 */
export interface Renewed {
  renewed: true;
  expiresAt: number;
  fence?: number;
}
/**
 * The claim is lost, and can't be renewed again.
 */
export interface NotRenewed {
  renewed: false;
  reason: "absent" | "released" | "expired" | "superseded";
}
/**
 * The claim is held, and another worker has its job.
 */
export interface TakenOver {
  renewed: false;
  reason: "taken";
}
/**
 * The claim was released; `repeated` is true if that was done before.
 */
export interface Released {
  released: true;
  repeated: boolean;
}
/**
 * The claim was not released, because the caller does not have it.
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
 * The connection of an event of the WebSocket API.
 */
export interface ConnectionContext {
  connectionId: string;
  routeKey: string;
  domainName?: string | null;
  stage?: string | null;
  identity?: Identity | null;
}
/**
 * The address of a client.
 */
export interface Identity {
  sourceIp?: string | null;
  userAgent?: string | null;
}
/**
 * One message of a client; `body` is its text.
 */
export interface MessageEvent {
  requestContext: ConnectionContext;
  body?: string | null;
}
/**
 * An answer that API Gateway sends to the client; `body` is JSON text, or empty.
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
 * A batch of records from a table's stream.
 */
export interface StreamEvent {
  Records: StreamRecord[];
}
/**
 * A record: a row that was written or deleted.
 */
export interface StreamRecord {
  dynamodb: StreamChange;
  eventName: "INSERT" | "MODIFY" | "REMOVE";
}
/**
 * The row of a stream record, in DynamoDB's typed values.
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
 * Asks deliver-webhook for one delivery at once; the caller has checked the user's rights.
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
 * A message; `body` is JSON text: a WebhookDelivery in the queue `webhooks`, a QueuedRequest in
 * the queue `jobs`.
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
 * The result of a delivery on demand, as in the document.
 */
export interface DeliveryResult {
  webhook: AssemblyWebhook;
}
/**
 * The delivery of the assembly's webhook.
 *
 * A stored document has `status` and the result of the last attempt. The answer to a trigger has
 * `delivered`, `status_code`, `error` and `attempts` of the delivery that it caused, and no
 * `status` if no webhook is configured. `missing` lists the settings that do not exist.
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
 * Why a delivery on demand was refused; `retry_after` in seconds, for `too_soon`.
 */
export interface DeliveryRefusal {
  refused: "not_found" | "not_ended" | "too_soon";
  retry_after?: number;
}
/**
 * The records or messages of a batch that failed.
 */
export interface BatchFailures {
  batchItemFailures: ItemFailure[];
}
/**
 * A record or message that must be delivered again.
 */
export interface ItemFailure {
  itemIdentifier: string;
}
/**
 * A connection that was closed, by either side.
 */
export interface DisconnectEvent {
  requestContext: ConnectionContext;
}
/**
 * The scheduled event that brings the slots of lanes into order.
 */
export interface LaneSweepEvent {
  sweep: "lanes";
}
/**
 * Numbers of rows of lanes, and of freed slots.
 */
export interface LanesSwept {
  swept: {
    [k: string]: number;
  };
}
/**
 * Cleans up after a job that its worker did not end.
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
 * The event of EventBridge for an execution that has ended.
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
 * `superseded`: the workspace has a newer claim, which was not changed.
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
 * The event of EventBridge for a new object under `inbox/` of the files bucket.
 */
export interface MessageArrived {
  "detail-type": "Object Created";
  detail: InboxDetail;
}
/**
 * What has arrived.
 */
export interface InboxDetail {
  object: InboxObject;
}
/**
 * An object under `inbox/`.
 */
export interface InboxObject {
  key: string;
}
/**
 * What became of an object; `known`: its message was here before. `gone`: it was moved.
 */
export interface IntakeResult {
  outcome: "queued" | "known" | "refused" | "gone";
  requestId?: string;
  reason?: string;
}
/**
 * An HTTP request from API Gateway (version 1 or 2), a Function URL or a load balancer.
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
 * The part of an HTTP event of version 2 with its method.
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
 * The scheduled event that looks for jobs whose lease has run out.
 */
export interface SweepEvent {
  sweep: "leases";
}
/**
 * Numbers of overdue requests by what was done; `unread` is a number of shards of the index.
 */
export interface Swept {
  swept: {
    [k: string]: number;
  };
}
/**
 * Records an interruption; `messageId` is that of the interrupted job.
 *
 * Missing fields are taken from `cause`, if that is JSON.
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
 * The record's id; `duplicate` is true if the record existed before.
 */
export interface RecordInterruptionResult {
  recorded: true;
  duplicate: boolean;
  recordId: string;
}
/**
 * The execution of a request has its claim, for at most so many seconds.
 */
export interface BeginJobInput {
  request: RequestNamed;
  operation: "begin";
  claimId: string;
  fence: number;
  seconds: number;
}
/**
 * The request that an execution runs; its progress and its end are written to its row.
 */
export interface RequestNamed {
  owner: string;
  requestId: string;
}
/**
 * A worker's report about its job: progress, or events after the first `after` ones.
 */
export interface ReportJobInput {
  request: RequestNamed;
  operation: "report";
  claimId: string;
  fence: number;
  percentage?: number | null;
  message?: string;
  /**
   * @maxItems 500
   */
  events?: unknown[];
  after?: number | null;
}
/**
 * Asks to end the request of an execution that has ended.
 */
export interface SettleJobInput {
  operation: "settle";
  executionArn: string;
  input?: string | null;
}
/**
 * Whether the job may go on: the request has not been cancelled.
 */
export interface JobBegun {
  begun: boolean;
}
/**
 * Whether it was stored: not if the request has ended, or another worker has the job.
 *
 * `eventCount`: how many events the request has now.
 */
export interface JobReported {
  accepted: boolean;
  cancelRequested: boolean;
  eventCount: number;
}
/**
 * Whether this call has ended a request.
 */
export interface JobSettled {
  ended: boolean;
}
/**
 * Messages that came over HTTP, each as text; the function `jobs` has verified the token.
 */
export interface MessagesOfCaller {
  caller: KnownCaller;
  /**
   * @maxItems 100
   */
  messages: string[];
}
/**
 * The user of a token that was verified.
 */
export interface KnownCaller {
  user_id: string;
  tenant_id: string;
  /**
   * @maxItems 4096
   */
  permissions: string[];
}
/**
 * The answers to the messages of a caller, in their order.
 */
export interface Answers {
  answers: {
    [k: string]: unknown;
  }[];
}
/**
 * Asks the worker of a claim to stop for another message.
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
 * A claim of an older version without an id, which an interrupt can't name.
 */
export interface OlderTarget {
  containerId?: string | null;
  threadId?: string | null;
  expiresAt?: number | null;
  claimId: null;
  fence: null;
}
/**
 * The interrupt was sent to the worker's queue.
 */
export interface InterruptSent {
  sent: true;
  interruptId: string;
  queueUrl: string;
  messageId: string;
}
/**
 * No interrupt was sent: no job runs, or its claim has no id.
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
 * A direct invoke for one assembly; the caller's IAM role is trusted to set `userId`, and
 * `tenantId` where several tenants may have a user of this id.
 */
export interface StatusInvocation {
  assemblyId: string;
  userId?: string | null;
  tenantId?: string | null;
  triggerWebhook?: boolean | null;
}
/**
 * A direct invoke for several assemblies; if it also has `assemblyId`, it is for that one.
 */
export interface BatchInvocation {
  /**
   * @maxItems 100
   */
  assemblyIds: string[];
  userId?: string | null;
  tenantId?: string | null;
}
/**
 * The scheduled event that looks for claims whose execution has ended.
 */
export interface ClaimSweepEvent {
  sweep: "claims";
}
/**
 * Numbers of claims: old enough to check, checked, and released.
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
 * `progress_pct` 0–100. It never has both `ok` and `error`. Until the job has ended it has
 * neither; `ASSEMBLY_CANCELED` is an `error`. If the deployment has extended codes, it is an `ok`,
 * and so is the code of a running job. `execution` grows with each run of the assembly. `joined`
 * are the ids of requests that waited for a failed assembly, and fail with it.
 */
export interface AssemblyDocument {
  assembly_id: string;
  ok?: OkCode;
  error?: string;
  message: string;
  uploads: AssemblyUpload[];
  results: {
    [k: string]: AssemblyResult[];
  };
  bytes_expected: number;
  bytes_received: number;
  bytes_usage: number;
  execution_duration?: number;
  execution_start?: string;
  last_job_completed?: string;
  template_id: string;
  branch: string;
  user: AssemblyUser;
  created_at: string;
  updated_at: string;
  progress_pct?: number;
  steps_total?: number;
  steps_completed?: number;
  current_step?: string;
  warnings?: string[];
  webhook?: AssemblyWebhook;
  request_id?: string;
  execution?: number;
  joined?: string[];
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
 * The owner of a job.
 */
export interface AssemblyUser {
  userId: string;
}
/**
 * The caller's assemblies, newest first; `next` is null on the last page.
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
  execution?: number;
  stalled?: boolean;
}
/**
 * Documents by id; null for an assembly that does not exist or is another user's.
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
 * Why a request was refused.
 *
 * `request_id` is the id of the invocation, which finds its log lines. `fits` is how many ids of
 * a batch, from the first on, fit into one answer. `code`, `details` and `retryable` are those of
 * a socket's error.
 */
export interface Refusal {
  error: string;
  problems?: Problem[];
  assembly_id?: string;
  request_id?: string;
  fits?: number;
  code?: ErrorCode;
  details?:
    | {
        [k: string]: unknown;
      }[]
    | {
        [k: string]: unknown;
      };
  retryable?: boolean;
  retry_after_ms?: number;
}
/**
 * One invalid field.
 */
export interface Problem {
  field: string;
  message: string;
}
/**
 * One message for a workspace; start the execution with the name from `execution_name`.
 *
 * `instruction` may have at most 255 KB of JSON. `timeoutSeconds` is shortened to end before the
 * claim of `claimTtlSeconds`, and `heartbeatSeconds` to less than `timeoutSeconds`.
 */
export interface JobFlowInput {
  projectUserId?: string | null;
  projectId?: string | null;
  userId?: string | null;
  threadId: string;
  messageId: string;
  instruction: unknown;
  attachments?: Attachment[] | null;
  request?: RequestNamed | null;
  claimTtlSeconds?: number;
  timeoutSeconds?: number;
  heartbeatSeconds?: number;
  maxClaimTries?: number;
  claimWaitSeconds?: number;
  minIntervalSeconds?: number | null;
}
/**
 * An object in S3 that belongs to a message.
 */
export interface Attachment {
  bucket: string;
  key: string;
}
/**
 * The cause of PREEMPTED, as JSON text: a worker has stopped for another thread.
 */
export interface PreemptionCause {
  interruptId: string;
  interruptingMessageId: string;
  newThreadId: string;
  partial: unknown;
}
/**
 * The job ended with `result`, which is null if there is a `resultObject`.
 */
export interface JobCompleted {
  outcome: "Completed";
  job: JobIds;
  result: unknown;
  resultObject?: ResultObject;
}
/**
 * The ids of the message of an execution.
 */
export interface JobIds {
  projectUserId: string;
  threadId: string;
  messageId: string;
}
/**
 * The object with a result of more than 255 KB; it is kept for thirty days.
 */
export interface ResultObject {
  bucket: string;
  key: string;
}
/**
 * The message was sent to the running job of its thread.
 */
export interface JobJoined {
  outcome: "Joined";
  job: JobIds;
  holder: ClaimHolder;
}
/**
 * The request was cancelled before its job began.
 */
export interface JobCancelled {
  outcome: "Cancelled";
  job: JobIds;
}
/**
 * The job was interrupted by another thread; `cause` is a PreemptionCause as JSON text.
 */
export interface JobInterrupted {
  outcome: "Interrupted";
  job: JobIds;
  cause: string;
}
/**
 * A job that its worker did not end, for an operator.
 *
 * Its id is the same when it is sent again. `repeated` is true if a letter with this id may
 * already be in the queue.
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
 * Asks the worker of one claim to stop; ignored after `expiresAt` (epoch seconds).
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
 * The claim of an interrupt; jobs with another claim ignore it.
 */
export interface InterruptedClaim {
  projectUserId: string;
  claimId: string;
  fence: number;
  containerId: string | null;
  threadId: string | null;
}
/**
 * A request that a worker is to take; `owner` is `tenant#user`. Its state is in its row.
 *
 * `due`: it was SCHEDULED and has a lane, and must only be put into the stream again.
 */
export interface QueuedRequest {
  owner: string;
  request_id: string;
  due?: boolean;
}
/**
 * A record of the requests' stream, or of the queue `jobs`, that could not be read, kept for
 * an operator.
 *
 * Its text is cut at 250,000 characters, and then is not valid JSON.
 */
export interface UnreadableRecord {
  error: string;
  record: unknown;
}
/**
 * An ended assembly whose webhook must be sent; `execution` differs when a job is run again.
 */
export interface WebhookDelivery {
  assembly_id: string;
  execution?: number | null;
  template_id?: string | null;
}
/**
 * A job for the workspace's worker, which sends heartbeats and the end with the task token.
 *
 * The claim ends at `expiresAt` (epoch seconds) unless the worker renews it. The worker stores a
 * result of more than 255 KB at `resultLocation` and sends `{"resultObject": {"bucket", "key"}}`;
 * its key is `resultKeyPrefix` and up to 64 characters that no other attempt has. With a
 * `request`, the worker reports progress and events of the job to `reportFunction`.
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
  resultKeyPrefix?: string | null;
  request?: RequestNamed | null;
  reportFunction?: string | null;
}
/**
 * An object in the stage's files bucket.
 */
export interface ObjectPlace {
  bucket: string;
  key: string;
}
/**
 * An attachment that exists; `size` in bytes.
 */
export interface FoundAttachment {
  bucket: string;
  key: string;
  size: number;
  ok: true;
}
/**
 * An attachment that could not be read, and the name of the error.
 */
export interface MissingAttachment {
  bucket: string;
  key: string;
  ok: false;
  error: string;
}
/**
 * Another message of the thread whose job runs; claim and fence are those of that job.
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
 * An attachment of a follow-up; the object may be missing.
 */
export interface FollowUpAttachment {
  bucket: string;
  key: string;
}
/**
 * The connection lasts until its token expires, and two hours after its handshake at most.
 */
export interface Authenticated {
  expires_at: string;
}
/**
 * The job has the answer, and is queued.
 */
export interface CallbackReturned {
  returned: true;
}
/**
 * `cancelling`: the job runs, and was asked to stop. Else how the request has ended.
 */
export interface Cancelled {
  request_id: string;
  status: "cancelled" | "cancelling" | "completed" | "failed";
}
/**
 * The uploads of one assembly; `completed` is true if the assembly is already completed.
 *
 * If the message would be larger than 128 KB, `url` leads to an object with the list instead.
 */
export interface CreatedUpload {
  assembly_id: string;
  completed: boolean;
  expires_at: string;
  uploads?: PresignedUpload[];
  url?: string;
}
/**
 * The URL for one file: PUT exactly the file of the request, with these headers.
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
 * The payload of the request, unchanged.
 */
export interface Echo {
  echo: {
    [k: string]: unknown;
  };
  action: "echo";
  received_at: string;
}
/**
 * The checks by name: `requests_table`, or `queue` when the action was queued.
 */
export interface Health {
  status: "healthy";
  version: string;
  checks: {
    [k: string]: HealthCheck;
  };
}
/**
 * The check of one part of the service, and its duration.
 */
export interface HealthCheck {
  status: "healthy";
  latency_ms: number;
}
/**
 * The stored state of a request; `seq` is that of its last message.
 *
 * `replay_of` is the job that this one repeats. `result_omitted` is true if the result is too
 * large for a socket message.
 */
export interface RequestState {
  request_id: string;
  action: string;
  status: RequestStatus;
  attempts: number;
  assembly_id?: string;
  cancel_requested: boolean;
  created_at: string;
  run_at?: string;
  started_at?: string;
  updated_at: string;
  ended_at?: string;
  replay_of?: string;
  event_count?: number;
  seq: number;
  progress: StoredProgress | null;
  why_waiting?: WhyWaiting;
  error?: ErrorBody;
  result?: unknown;
  result_omitted?: boolean;
  events?: EventPage;
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
 * Why a job does not run, since when, and until when if that is known.
 *
 * `queued`: a worker will take it. `lane_full`: as many jobs of its tenant or its action run as
 * may. `retrying`: an attempt has failed, and another one follows. `scheduled`: it is not due.
 * `rate`: as many jobs of its action have started in the last minute as may. `callback`: it waits
 * for an answer from outside.
 */
export interface WhyWaiting {
  reason: "queued" | "lane_full" | "retrying" | "scheduled" | "rate" | "callback";
  since: string;
  until?: string;
}
/**
 * An error; `details` lists invalid fields as `{field, message}`.
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
 * Events of a job, the first of which has the number `first`; it has emitted `count`.
 *
 * `more`: ask again, since the last one. `gap`: events before `first` are no longer kept.
 */
export interface EventPage {
  first: number;
  events: unknown[];
  count: number;
  more: boolean;
  gap: boolean;
}
/**
 * The current state of the request; `subscribed` is false if it has ended.
 */
export interface Subscribed {
  request_id: string;
  action: string;
  status: RequestStatus;
  attempts: number;
  assembly_id?: string;
  cancel_requested: boolean;
  created_at: string;
  run_at?: string;
  started_at?: string;
  updated_at: string;
  ended_at?: string;
  replay_of?: string;
  event_count?: number;
  seq: number;
  progress: StoredProgress | null;
  why_waiting?: WhyWaiting;
  error?: ErrorBody;
  result?: unknown;
  result_omitted?: boolean;
  events?: EventPage;
  subscribed: boolean;
}
/**
 * The subscription has ended; also the answer if it did not exist.
 */
export interface Unsubscribed {
  request_id: string;
  was_subscribed: boolean;
}
/**
 * A request. One `id` of a client makes one job; without it the service generates an id.
 *
 * `metadata` is a map of strings: `{"mode": "async"}` queues an action that is otherwise answered
 * at once, `{"on_disconnect": "cancel"}` cancels the job when its connection closes, and
 * `{"priority": "high"}` or `"low"` changes its place among the jobs that wait for a slot.
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
 * Keeps the connection from being closed as idle.
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
 * Metadata of a short action.
 */
export interface SyncMetadata {
  mode?: "sync";
  on_disconnect?: "detach" | "cancel";
  priority?: "high" | "normal" | "low";
  run_at?: string | null;
  delay_seconds?: string | null;
  [k: string]: string | "sync" | "detach" | "cancel" | "high" | "normal" | "low" | null | undefined;
}
/**
 * Returns the payload, at once or, with `mode: async`, as a job.
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
 * How a request is run; other names may have any string, which the service ignores.
 */
export interface Metadata {
  mode?: "sync" | "async";
  on_disconnect?: "detach" | "cancel";
  priority?: "high" | "normal" | "low";
  run_at?: string | null;
  delay_seconds?: string | null;
  [k: string]:
    string | "sync" | "async" | "detach" | "cancel" | "high" | "normal" | "low" | null | undefined;
}
/**
 * Checks the service, at once or, with `mode: async`, by a job.
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
 * Returns a presigned URL for each file of an assembly.
 */
export interface CreateUploadRequest {
  id?: string | null;
  action: "create_upload";
  payload: CreateUpload | StoredPayload;
  metadata?: SyncMetadata;
}
/**
 * Asks for presigned URLs to upload the files of one assembly.
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
 * A file that the client will upload; `md5hash` in hex or as a Content-MD5.
 *
 * `field` and `meta` are the client's own, and come back in the assembly's document.
 */
export interface UploadFile {
  name: string;
  size: number;
  mime?: string;
  md5hash: string;
  field?: string;
  meta?: {
    [k: string]: unknown;
  };
}
/**
 * A payload that no message can carry: the key of an upload of the caller with its JSON.
 */
export interface StoredPayload {
  payload_key: string;
}
/**
 * Runs a template over uploaded files; the result is the assembly document.
 */
export interface ProcessAssemblyRequest {
  id?: string | null;
  action: "process_assembly";
  payload: ProcessAssembly | StoredPayload;
  metadata?: AsyncMetadata;
}
/**
 * Runs a template over uploaded files.
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
 * A file that was uploaded under `key`.
 */
export interface UploadedFile {
  name: string;
  size: number;
  mime?: string;
  md5hash: string;
  field?: string;
  meta?: {
    [k: string]: unknown;
  };
  key: string;
}
/**
 * Metadata of an action that is always queued.
 */
export interface AsyncMetadata {
  mode?: "async";
  on_disconnect?: "detach" | "cancel";
  priority?: "high" | "normal" | "low";
  run_at?: string | null;
  delay_seconds?: string | null;
  [k: string]:
    string | "async" | "detach" | "cancel" | "high" | "normal" | "low" | null | undefined;
}
/**
 * Makes a report over the caller's tenant; needs the permission `reports`.
 */
export interface GenerateReportRequest {
  id?: string | null;
  action: "generate_report";
  payload: GenerateReport;
  metadata?: AsyncMetadata;
}
/**
 * Asks for a report over the caller's tenant; both dates are included.
 */
export interface GenerateReport {
  start_date: string;
  end_date: string;
  format?: "csv" | "json";
  group_by?: "day" | "action" | "status";
}
/**
 * Runs a job that waits and reports progress, for tests.
 */
export interface DelayRequest {
  id?: string | null;
  action: "delay";
  payload?: Delay;
  metadata?: AsyncMetadata;
}
/**
 * A job that waits and reports progress; it fails at the step `fail_at`.
 */
export interface Delay {
  seconds?: number;
  steps?: number;
  fail_at?: number | null;
  transient?: boolean;
}
/**
 * Runs a job that emits numbers, to show how events arrive.
 */
export interface CountRequest {
  id?: string | null;
  action: "count";
  payload?: Count;
  metadata?: AsyncMetadata;
}
/**
 * A job that emits the numbers from 1 to `to` as events, within about `seconds`.
 */
export interface Count {
  to?: number;
  seconds?: number;
}
/**
 * Has a workspace's worker do something; the job flow runs the job.
 */
export interface InstructRequest {
  id?: string | null;
  action: "instruct";
  payload: Instruct;
  metadata?: AsyncMetadata;
}
/**
 * Has the worker of a workspace, which is the caller's and the project's, do something.
 *
 * A workspace has one job at a time. An instruction of the same thread goes to the running job;
 * one of another thread interrupts it. `instruction` is any JSON value.
 */
export interface Instruct {
  project: string;
  thread: string;
  instruction: unknown;
  /**
   * @maxItems 100
   */
  attachments?: AttachedUpload[];
}
/**
 * An upload of the caller that belongs to an instruction.
 */
export interface AttachedUpload {
  key: string;
}
/**
 * Returns the stored state of a request of the caller.
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
 * Returns the state of a request, and sends its later messages.
 */
export interface SubscribeRequest {
  id?: string | null;
  action: "subscribe";
  payload: Subscribe;
  metadata?: SyncMetadata;
}
/**
 * Subscribes to a request; the client already has the messages up to `since_seq`.
 *
 * With `since_event`, the answer has the events after that number: 0 asks for all.
 * `user_id` is the request's owner, if that is another user of the tenant; this needs the
 * permission `tenant:read`.
 */
export interface Subscribe {
  request_id: string;
  since_seq?: number | null;
  since_event?: number | null;
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
 * Ends the subscription to a request.
 */
export interface Unsubscribe {
  request_id: string;
  user_id?: string | null;
}
/**
 * Prolongs the connection by a newer token of the same user and tenant.
 */
export interface AuthenticateRequest {
  id?: string | null;
  action: "authenticate";
  payload: Authenticate;
  metadata?: SyncMetadata;
}
/**
 * A newer token, as a handshake takes it.
 */
export interface Authenticate {
  token: string;
}
/**
 * Gives a waiting job the result of its step; the token says which job.
 */
export interface CallbackRequest {
  id?: string | null;
  action: "callback";
  payload: Callback;
  metadata?: SyncMetadata;
}
/**
 * Returns a token with either a result or an error, for the job that waits for it.
 */
export interface Callback {
  token: string;
  result?: unknown;
  error?: string;
}
/**
 * Cancels a waiting job at once; asks the worker of a running job to stop.
 */
export interface CancelRequest {
  id?: string | null;
  action: "cancel";
  payload: RequestReference;
  metadata?: SyncMetadata;
}
/**
 * Runs a job that has ended once more, as a new job, and acknowledges that one.
 */
export interface ReplayRequest {
  id?: string | null;
  action: "replay";
  payload: RequestReference;
  metadata?: SyncMetadata;
}
/**
 * The body of the answer to an accepted handshake.
 */
export interface ConnectAnswer {
  message: "Connected successfully";
}
/**
 * The body of the answer to a refused handshake.
 */
export interface ConnectRefusal {
  error: string;
  code: "UNAUTHORIZED" | "RATE_LIMITED" | "INTERNAL_ERROR";
}
/**
 * The result of a `count`.
 */
export interface CountResult {
  to: number;
}
/**
 * The result of a `delay` without `fail_at`.
 */
export interface DelayResult {
  seconds: number;
  steps: number;
}
/**
 * A link to a report; `size` in bytes.
 */
export interface Report {
  format: "csv" | "json";
  rows: number;
  size: number;
  sha256: string;
  url: string;
}
/**
 * How an instruction ended well. `Completed`: with the `result` of its worker, any JSON value,
 * or a link to it, if it is large. `Joined`: it was sent to the running job of its thread, whose
 * id is `request_id`.
 */
export interface Instructed {
  outcome: "Completed" | "Joined";
  result?: unknown;
  result_url?: string;
  request_id?: string;
}
/**
 * The answer of a short action.
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
 * The request was stored as a job; `complete` or `error` follows.
 *
 * `execution` is that of the assembly's document, which is there.
 */
export interface AcknowledgmentMessage {
  request_id?: string;
  timestamp: string;
  type: "acknowledgment";
  status: string;
  message: string;
  assembly_id?: string;
  execution?: number;
}
/**
 * The progress of a job; `seq` grows with each message of the job, `percentage` never falls.
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
 * Events that a job has emitted, in order; the first one has the number `first`.
 *
 * A job's events are numbered from 1 without gaps. A client that misses one subscribes with
 * `since_event`. `gap`: events before these are no longer kept.
 */
export interface EventMessage {
  request_id?: string;
  timestamp: string;
  type: "event";
  first: number;
  events: unknown[];
  gap: boolean;
}
/**
 * The end of a job that succeeded.
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
  event_count?: number;
}
/**
 * With `seq`: the end of a job that did not succeed. Without: the message was refused.
 */
export interface ErrorMessage {
  request_id?: string;
  timestamp: string;
  type: "error";
  seq?: number;
  error: ErrorBody;
  event_count?: number;
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
 * A message from the server that checks the connection; needs no answer.
 */
export interface PingMessage {
  request_id?: string;
  timestamp: string;
  type: "ping";
}
