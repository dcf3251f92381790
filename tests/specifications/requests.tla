------------------------------ MODULE requests ------------------------------
(* One request and the document of its assembly: enqueue, take, renew, finish, put back, park and
   requeue, take over, cancel; begin and end of the document.

   A step that writes is one conditional write of the code, or is refused by it; conditions.toml
   says which. A condition is written as Holds(its name, what it says), so that TLC can drop it.

   There is no clock: a lease may run out at any moment, also that of a worker that only stands
   still, and then goes on. `fresh` says whether a row is still the one that somebody has read, which
   the code knows by `write_id`; `same` whether its `lease_until` is: in whole seconds, a later one
   may equal an earlier one. An answer may be lost; a worker may stop for ever at any step. *)
EXTENDS Integers, Sequences, TLC

CONSTANTS
    Dropped,      \* the conditions that are left out
    Workers,      \* invocations of processor; each takes jobs, and sweeps
    Mortal,       \* those that may be killed
    MaxAttempts,
    MaxReports,   \* progress with a `seq`
    MaxJoins      \* how often the assembly is busy with another request

None == "none"
Ended == {"COMPLETED", "FAILED", "CANCELLED"}
Waiting == {"PENDING", "SCHEDULED"}

VARIABLES
    row,          \* of the request
    document,     \* of its assembly: "none", "runs", "ended"
    worker,       \* by worker: what it does, and what it has read
    canceller,    \* the row that router has read in order to cancel it
    joins,
    told,         \* the largest `seq` of a message to the listeners
    broken        \* the promises that a step has broken

vars == <<row, document, worker, canceller, joins, told, broken>>

Holds(condition, what) == condition \in Dropped \/ what

NoRow == [status |-> None, owner |-> None, overdue |-> FALSE, attempts |-> 0, seq |-> 0,
          asked |-> FALSE]
Unread == [status |-> None, fresh |-> FALSE, same |-> FALSE]
Idle == [does |-> "idle", seq |-> 0, saw |-> Unread, documentFresh |-> FALSE, asked |-> FALSE]
NotCancelling == [does |-> "idle", seq |-> 0, saw |-> Unread]

Init ==
    /\ row = NoRow
    /\ document = "none"
    /\ worker = [w \in Workers |-> Idle]
    /\ canceller = NotCancelling
    /\ joins = 0
    /\ told = 0
    /\ broken = {}

HasEnded == row.status \in Ended

(* What has been read is not the row any more; its `lease_until` may be. *)
Stale(saw, same) == [saw EXCEPT !.fresh = FALSE, !.same = @ /\ same]
StaleAll(all, same) == [w \in Workers |-> [all[w] EXCEPT !.saw = Stale(@, same)]]
Write(new, all, same) ==
    /\ row' = new
    /\ worker' = StaleAll(all, same)
    /\ canceller' = [canceller EXCEPT !.saw = Stale(@, same)]

Seen == [status |-> row.status, fresh |-> TRUE, same |-> TRUE]

(* A new end of the lease. One that is equal to the old one has run out like that. *)
Leased(r, same) == [r EXCEPT !.overdue = @ /\ same]

Breaks(promises) == broken' = broken \cup promises
If(condition, promise) == IF condition THEN {promise} ELSE {}
EndsOnce == If(HasEnded, "a request ends once")
(* Its owner works, or will go on: it has the request for itself until the lease ends. *)
TakesNoLease(w) ==
    If(row.owner \notin {None, w} /\ ~row.overdue, "a valid lease is not taken")
NotEarly == If(row.status = "SCHEDULED" /\ ~row.overdue, "a request waits until it is due")
Numbered(seq) == If(seq <= told, "each message has a seq of its own")
Tell(seq) == told' = IF seq > told THEN seq ELSE told

-----------------------------------------------------------------------------
(* router. The client may send a request again. *)
Enqueue ==
    /\ row.status = None \/ "enqueue.absent" \in Dropped \/ "enqueue.expired" \in Dropped
    /\ \/ Holds("enqueue.absent", row.status = None)
       \/ Holds("enqueue.expired", FALSE)   \* a week after its end
    /\ \E status \in {"PENDING", "SCHEDULED"} :
        Write([NoRow EXCEPT !.status = status], worker, FALSE)
    /\ Breaks(If(row.status # None, "an id is used once"))
    /\ UNCHANGED <<document, joins, told>>

ReadToCancel ==
    /\ canceller.does = "idle"
    /\ row.status # None
    /\ ~HasEnded
    /\ canceller' = [does |-> IF row.status \in Waiting /\ row.attempts = 0 THEN "cancels"
                              ELSE "asks", seq |-> row.seq + 1, saw |-> Seen]
    /\ UNCHANGED <<row, document, worker, joins, told, broken>>

AsRead(name, saw) ==
    /\ Holds(name \o ".status", row.status = saw.status)
    /\ Holds(name \o ".until", saw.same)
    /\ Holds(name \o ".write", saw.fresh)

Cancel ==
    LET seq == canceller.seq IN
    /\ canceller.does = "cancels"
    /\ AsRead("cancel", canceller.saw)
    /\ row' = [row EXCEPT !.status = "CANCELLED", !.owner = None, !.seq = seq, !.asked = TRUE,
                          !.overdue = FALSE]
    /\ worker' = StaleAll(worker, FALSE)
    /\ canceller' = NotCancelling
    /\ Tell(seq)
    /\ Breaks(EndsOnce \cup Numbered(seq) \cup TakesNoLease(None))
    /\ UNCHANGED <<document, joins>>

(* Refused, it reads again. *)
CancelAgain ==
    /\ canceller.does # "idle"
    /\ canceller' = NotCancelling
    /\ UNCHANGED <<row, document, worker, joins, told, broken>>

(* Also by disconnect. It changes no `write_id`. *)
AskToCancel ==
    /\ canceller.does = "asks"
    /\ Holds("ask_to_cancel.not_ended", ~HasEnded)
    /\ row' = [row EXCEPT !.asked = TRUE]
    /\ canceller' = NotCancelling
    /\ Breaks(If(HasEnded, "an ended request does not change"))
    /\ UNCHANGED <<document, worker, joins, told>>

-----------------------------------------------------------------------------
(* A worker's attempt. `works`: before it has begun its document. `runs`: with it.
   `ends`: it has ended its document, or there is none to end. *)

Job(w, all) == [all EXCEPT ![w] = [Idle EXCEPT !.does = "works", !.seq = row'.seq,
                                              !.asked = row'.asked]]

Take(w) ==
    /\ worker[w].does = "idle"
    /\ row.status # None
    /\ \E same \in BOOLEAN :
        /\ Holds("take.attempts", row.attempts < MaxAttempts)
        /\ \/ Holds("take.pending", row.status = "PENDING")
           \/ /\ Holds("take.retrying", row.status = "RETRYING")
              /\ Holds("take.mine", row.owner = w) \/ Holds("take.waited", row.overdue)
           \/ /\ Holds("take.processing", row.status = "PROCESSING")
              /\ Holds("take.left", row.overdue)
           \/ /\ Holds("take.scheduled", row.status = "SCHEDULED")
              /\ Holds("take.due", row.overdue)
        /\ row' = [Leased(row, same) EXCEPT !.status = "PROCESSING", !.owner = w,
                                             !.attempts = @ + 1]
        /\ \/ worker' = StaleAll(worker, same)
           \/ worker' = StaleAll(Job(w, worker), same)
        /\ canceller' = [canceller EXCEPT !.saw = Stale(@, same)]
    /\ Breaks(EndsOnce \cup TakesNoLease(w) \cup NotEarly
              \cup If(row.attempts >= MaxAttempts, "attempts are bounded"))
    /\ UNCHANGED <<document, joins, told>>

Owned(name, w) ==
    /\ Holds(name \o ".status", row.status = "PROCESSING")
    /\ Holds(name \o ".owner", row.owner = w)

(* With progress, which is posted, or without. *)
Renew(w) ==
    /\ worker[w].does \in {"works", "runs"}
    /\ Owned("renew", w)
    /\ \E same \in BOOLEAN, report \in {0, 1} :
        LET seq == worker[w].seq + report IN
        /\ seq <= MaxReports
        /\ \/ report = 0
           \/ Holds("renew.first", row.seq = 0)
           \/ Holds("renew.newer", row.seq <= seq)
        /\ Write([Leased(row, same) EXCEPT !.seq = IF report = 1 THEN seq ELSE @,
                                           !.status = "PROCESSING"],
                 [worker EXCEPT ![w].seq = seq, ![w].asked = row.asked], same)
        /\ IF report = 1 THEN Tell(seq) ELSE UNCHANGED told
        /\ Breaks(EndsOnce \cup TakesNoLease(w)
                  \cup (IF report = 1 THEN Numbered(seq) ELSE {}))
    /\ UNCHANGED <<document, joins>>

(* The document is written if it is as it was read: `rev`. *)
DocumentWrite(new, all, w) ==
    /\ document' = new
    /\ worker' = [v \in Workers |-> [all[v] EXCEPT !.documentFresh = v = w]]

ReadDocument(w) ==
    /\ worker[w].does = "works"
    /\ document # "ended"
    /\ worker' = [worker EXCEPT ![w].does = "begins", ![w].documentFresh = TRUE]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

WriteDocument(w, name, new, next) ==
    /\ Holds(name, worker[w].documentFresh)
    /\ DocumentWrite(new, [worker EXCEPT ![w].does = next], w)
    /\ Breaks(If(document = "ended", "a document ends once"))
    /\ UNCHANGED <<row, canceller, joins, told>>

(* One transaction, so that no document is begun without the lease of its request. *)
BeginDocument(w) ==
    /\ worker[w].does = "begins"
    /\ Owned("begin", w)
    /\ WriteDocument(w, "begin.rev", "runs", "runs")
EndDocument(w) == worker[w].does = "runs" /\ WriteDocument(w, "document.rev", "ended", "ends")

(* The attempt ends without a result: it was asked to stop, or failed for good. It ends the
   document that it finds, and reads again if that was written in between. *)
ReadToEnd(w) ==
    /\ worker[w].does \in {"works", "begins", "runs"}
    /\ worker[w].asked \/ row.attempts >= MaxAttempts
    /\ worker' = [worker EXCEPT ![w].does = IF document = "runs" THEN "stops" ELSE "ends",
                                ![w].documentFresh = TRUE]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

StopDocument(w) == worker[w].does = "stops" /\ WriteDocument(w, "document.rev", "ended", "ends")

StopAgain(w) ==
    /\ worker[w].does = "stops"
    /\ ~worker[w].documentFresh
    /\ worker' = [worker EXCEPT ![w].does = IF document = "runs" THEN "stops" ELSE "ends",
                                ![w].documentFresh = TRUE]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

(* A later attempt finds what an earlier one has ended. *)
FindEnd(w) ==
    /\ worker[w].does = "works"
    /\ document = "ended"
    /\ worker' = [worker EXCEPT ![w].does = "ends"]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

Finish(w) ==
    LET seq == worker[w].seq + 1 IN
    /\ worker[w].does = "ends"
    /\ Owned("finish", w)
    /\ \E status \in Ended :
        /\ Write([row EXCEPT !.status = status, !.owner = None, !.seq = seq, !.overdue = FALSE],
                 [worker EXCEPT ![w] = Idle], FALSE)
        /\ Tell(seq)
        /\ Breaks(EndsOnce \cup TakesNoLease(w) \cup Numbered(seq))
    /\ UNCHANGED <<document, joins>>

(* For a later attempt: here, after a wait (keep), or of any worker. A join does not count. *)
PutBack(w) ==
    /\ worker[w].does \in {"works", "begins", "runs"}
    /\ Owned("put_back", w)
    /\ \E same \in BOOLEAN, keep \in BOOLEAN, counts \in BOOLEAN :
        /\ counts \/ (joins < MaxJoins /\ ~keep /\ row.attempts > 0 /\ document = "none"
                       /\ worker[w].does = "works")
        /\ counts => row.attempts < MaxAttempts
        /\ joins' = IF counts THEN joins ELSE joins + 1
        /\ Write([Leased(row, same) EXCEPT !.status = "RETRYING",
                                           !.owner = IF keep THEN @ ELSE None,
                                           !.attempts = IF counts THEN @ ELSE @ - 1],
                 [worker EXCEPT ![w] = Idle], same)
    /\ Breaks(EndsOnce \cup TakesNoLease(w))
    /\ UNCHANGED <<document, told>>

(* A write that was refused, an answer that never came, an error, a kill. *)
Stop(w) ==
    /\ worker[w].does \notin {"idle", "dead"}
    /\ \/ worker' = [worker EXCEPT ![w] = Idle]
       \/ w \in Mortal /\ worker' = [worker EXCEPT ![w] = [Idle EXCEPT !.does = "dead"]]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

(* What it wrote was refused. *)
GiveUp(w) ==
    /\ \/ worker[w].does \in {"parks", "takes over"} /\ ~worker[w].saw.fresh
       \/ worker[w].does \in {"works", "begins", "runs", "stops", "ends"} /\ row.owner # w
       \/ worker[w].does \in {"begins", "runs"} /\ ~worker[w].documentFresh
    /\ worker' = [worker EXCEPT ![w] = Idle]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

-----------------------------------------------------------------------------
(* The sweeper, and the end of another request's assembly, which requeues its followers. *)

ReadOverdue(w) ==
    /\ worker[w].does = "idle"
    /\ row.overdue
    /\ row.status # "SCHEDULED"   \* that starts
    /\ worker' = [worker EXCEPT ![w] = [Idle EXCEPT
                    !.does = IF row.attempts < MaxAttempts THEN "parks" ELSE "takes over",
                    !.saw = Seen]]
    /\ UNCHANGED <<row, document, canceller, joins, told, broken>>

Park(w) ==
    /\ worker[w].does = "parks"
    /\ AsRead("park", worker[w].saw)
    /\ Write([row EXCEPT !.status = "RETRYING", !.owner = None], [worker EXCEPT ![w] = Idle], TRUE)
    /\ Breaks(EndsOnce \cup TakesNoLease(None))
    /\ UNCHANGED <<document, joins, told>>

TakeOver(w) ==
    /\ worker[w].does = "takes over"
    /\ AsRead("take_over", worker[w].saw)
    /\ \E same \in BOOLEAN :
        /\ row' = [Leased(row, same) EXCEPT !.status = "PROCESSING", !.owner = w]
        /\ \/ worker' = StaleAll([worker EXCEPT ![w] = Idle], same)
           \/ worker' = StaleAll(Job(w, worker), same)
        /\ canceller' = [canceller EXCEPT !.saw = Stale(@, same)]
    /\ Breaks(EndsOnce \cup TakesNoLease(w)
              \cup If(row.attempts < MaxAttempts, "attempts are used before a request fails"))
    /\ UNCHANGED <<document, joins, told>>

Requeue ==
    /\ row.status # None
    /\ Holds("requeue.status", row.status = "RETRYING")
    /\ Holds("requeue.free", row.owner = None)
    /\ row.status # "PENDING"
    /\ row' = [row EXCEPT !.status = "PENDING", !.overdue = FALSE]
    /\ worker' = StaleAll(worker, FALSE)   \* what the sweeper has read was overdue
    /\ \E same \in BOOLEAN : canceller' = [canceller EXCEPT !.saw = Stale(@, same)]
    /\ Breaks(EndsOnce \cup TakesNoLease(None))
    /\ UNCHANGED <<document, joins, told>>

(* The sweeper, or the message of a request with a lane. *)
Start ==
    /\ row.status # None
    /\ Holds("start.scheduled", row.status = "SCHEDULED")
    /\ Holds("start.due", row.overdue)
    /\ row.status # "PENDING"
    /\ row' = [row EXCEPT !.status = "PENDING", !.overdue = FALSE]
    /\ worker' = StaleAll(worker, FALSE)
    /\ \E same \in BOOLEAN : canceller' = [canceller EXCEPT !.saw = Stale(@, same)]
    /\ Breaks(EndsOnce \cup TakesNoLease(None) \cup NotEarly)
    /\ UNCHANGED <<document, joins, told>>

(* A lease, or the time in which a worker should take the request, runs out; or a request is due. *)
Expire ==
    /\ row.status # None
    /\ ~HasEnded
    /\ ~row.overdue
    /\ row' = [row EXCEPT !.overdue = TRUE]
    /\ UNCHANGED <<document, worker, canceller, joins, told, broken>>

Next ==
    \/ Enqueue \/ ReadToCancel \/ Cancel \/ CancelAgain \/ AskToCancel \/ Requeue \/ Start \/ Expire
    \/ \E w \in Workers :
        \/ Take(w) \/ Renew(w) \/ ReadDocument(w) \/ BeginDocument(w) \/ EndDocument(w)
        \/ ReadToEnd(w) \/ StopDocument(w) \/ StopAgain(w) \/ FindEnd(w) \/ Finish(w)
        \/ PutBack(w) \/ Stop(w) \/ GiveUp(w) \/ ReadOverdue(w) \/ Park(w) \/ TakeOver(w)

(* One worker is never killed, leases run out, not every answer is lost, and what can be done again
   and again is done at some time. *)
Fairness ==
    /\ WF_vars(Expire)
    /\ SF_vars(Requeue)
    /\ \A w \in Workers \ Mortal :
        /\ SF_vars(\/ Take(w) /\ worker'[w].does = "works"
                   \/ TakeOver(w) /\ worker'[w].does = "works")
        /\ SF_vars(ReadOverdue(w)) /\ SF_vars(Park(w)) /\ SF_vars(GiveUp(w))
        /\ SF_vars(ReadDocument(w) \/ FindEnd(w) \/ ReadToEnd(w))
        /\ SF_vars(BeginDocument(w) \/ StopAgain(w))
        /\ SF_vars(EndDocument(w) \/ StopDocument(w))
        /\ SF_vars(Finish(w))

Spec == Init /\ [][Next]_vars /\ Fairness

-----------------------------------------------------------------------------
Symmetry == Permutations(Workers)

NothingBroken == broken = {}

(* A request that has ended leaves no document that runs. *)
DocumentEnds == HasEnded => document # "runs"

(* A row is the sweeper's to find until it ends. *)
EveryRequestEnds == (row.status # None) ~> HasEnded
=============================================================================
