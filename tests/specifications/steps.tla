------------------------------- MODULE steps -------------------------------
(* The steps of one request under the lease of its worker: the first one is a function, the second
   one a callback, after which the job ends. And the tokens of the callback, which anybody may
   return who has them.

   A write whose answer does not come is carried out at any later time, or never: it is in `late`.
   Its worker does not know, and fails. It puts the request back, for itself (keep) or for others,
   or stops, and its lease runs out. A worker's id is that of an invocation, so that only what it
   has kept comes to the same id again. A condition is written as Holds(its name, what it says), so
   that TLC can drop it; conditions.toml says which writes of the code these are.

   `fresh` says that no step or callback was stored since the row was read, which the code knows by
   `step_write_id`; `old` that the lease was renewed since a renewal was sent, or the request was
   taken again. *)
EXTENDS Integers, FiniteSets, Sequences, TLC

CONSTANTS
    Dropped,      \* the conditions that are left out
    Workers,      \* invocations
    Returners,    \* who return tokens, each after it has read the row
    MaxTokens,
    MaxTakes,
    MaxLate       \* writes that are late

None == "none"
Function == 1
Callback == 2

VARIABLES
    row,          \* of the request; `token` is the digest of the callback that is open
    worker,       \* by worker: what it does, and the row as it was shown to it
    returner,     \* by returner: the token that it returns, and whether the job waits for it
    out,          \* the tokens that were sent
    late,         \* the writes that may still be carried out
    counts,       \* of what is bounded
    broken        \* the promises that a step has broken

vars == <<row, worker, returner, out, late, counts, broken>>

Holds(condition, what) == condition \in Dropped \/ what
Breaks(promises) == broken' = broken \cup promises
If(condition, promise) == IF condition THEN {promise} ELSE {}

(* over: the time of the callback. waits: for the callback. *)
Stored == [status |-> "PENDING", owner |-> None, overdue |-> FALSE, count |-> 0, token |-> 0,
           sent |-> FALSE, over |-> FALSE, answer |-> 0, waits |-> FALSE]
Idle == [does |-> "idle", count |-> 0, token |-> 0, sent |-> FALSE, answer |-> 0, fresh |-> TRUE]
Gone == [Idle EXCEPT !.does = "gone"]
NoOne == [token |-> 0, waits |-> FALSE]

Init ==
    /\ row = Stored
    /\ worker = [w \in Workers |-> Idle]
    /\ returner = [r \in Returners |-> NoOne]
    /\ out = {} /\ late = {} /\ broken = {}
    /\ counts = [tokens |-> 0, takes |-> 0, late |-> 0]

HasEnded == row.status = "ENDED"
IsBusy == row.owner # None /\ ~row.overdue
HasIt(w) == row.status = "PROCESSING" /\ row.owner = w
View(r) == [does |-> "works", count |-> r.count, token |-> r.token, sent |-> r.sent,
            answer |-> r.answer, fresh |-> TRUE]

Renewed(all, w) == {[x EXCEPT !.old = @ \/ x.by = w] : x \in all}
Stepped(all) == {[x EXCEPT !.fresh = FALSE] : x \in all}

-----------------------------------------------------------------------------
(* Writes of a worker. x: whose it is, and what it was given. *)

Owned(name, w) ==
    /\ Holds(name \o ".status", row.status = "PROCESSING")
    /\ Holds(name \o ".owner", row.owner = w)

Fewer(name, count) ==
    \/ Holds(name \o ".first", row.count = 0)
    \/ Holds(name \o ".fewer", row.count < count)

IsStored(x) ==
    If(~HasIt(x.by), "a step is stored by the worker that has the job")
    \cup If(row.count >= x.count, "steps stay as they are")
WithStep(x) ==
    IF x.count = Callback
    THEN [row EXCEPT !.count = x.count, !.token = 0, !.sent = FALSE, !.over = FALSE, !.answer = 0]
    ELSE [row EXCEPT !.count = x.count]

(* Also that of a callback that was answered: its worker was shown the answer. *)
StoreStep(x) ==
    /\ Owned("store", x.by)
    /\ Fewer("store", x.count)
    /\ row' = WithStep(x)
    /\ Breaks(IsStored(x))

TimeOut(x) ==
    /\ Owned("time_out", x.by)
    /\ Fewer("time_out", x.count)
    /\ Holds("time_out.unanswered", row.answer = 0)
    /\ row' = WithStep(x)
    /\ Breaks(IsStored(x) \cup If(row.answer # 0, "an answer that was accepted is the result"))

OpenCallback(x) ==
    /\ Owned("open", x.by)
    /\ Holds("open.unanswered", row.answer = 0)
    /\ \/ Holds("open.first", row.count = 0 /\ row.token = 0)
       \/ Holds("open.seen", x.fresh)
    /\ row' = [row EXCEPT !.token = x.token, !.sent = FALSE]
    /\ Breaks(If(~HasIt(x.by), "a callback is opened by the worker that has the job")
              \cup If(row.answer # 0, "an answer is of the callback that is open")
              \cup If(~x.fresh, "a late callback replaces no other"))

AwaitCallback(x) ==
    /\ Owned("await", x.by)
    /\ Holds("await.unanswered", row.answer = 0)
    /\ row' = [row EXCEPT !.status = "RETRYING", !.owner = None, !.overdue = FALSE,
                          !.token = x.token, !.sent = TRUE, !.waits = TRUE]
    /\ Breaks(If(HasEnded, "a request ends once")
              \cup If(IsBusy /\ row.owner # x.by, "a valid lease is not taken")
              \cup If(row.answer # 0, "a job that has its answer does not wait"))

Renew(x) ==
    /\ HasIt(x.by)
    /\ Holds("renew.later", ~x.old)
    /\ row' = [row EXCEPT !.overdue = x.old]
    /\ Breaks(If(x.old, "a renewal takes no time from a lease"))

CarryOut(x) ==
    \/ x.kind = "store" /\ StoreStep(x)
    \/ x.kind = "time out" /\ TimeOut(x)
    \/ x.kind = "open" /\ OpenCallback(x)
    \/ x.kind = "await" /\ AwaitCallback(x)
    \/ x.kind = "renew" /\ Renew(x)

After(x, all) ==
    CASE x.kind = "renew" -> Renewed(all, x.by)
      [] x.kind = "await" -> all
      [] OTHER -> Stepped(all)
Seen(x, all) ==
    IF x.kind \in {"renew", "await"} THEN all
    ELSE [w \in Workers |-> [all[w] EXCEPT !.fresh = FALSE]]

-----------------------------------------------------------------------------
(* Workers *)

Take(w) ==
    /\ worker[w].does \in {"idle", "kept"}
    /\ counts.takes < MaxTakes
    /\ \/ row.status = "PENDING"
       \/ row.status = "RETRYING" /\ (row.owner = w \/ row.overdue)
       \/ row.status = "PROCESSING" /\ row.overdue
    /\ row' = [row EXCEPT !.status = "PROCESSING", !.owner = w, !.overdue = FALSE, !.waits = FALSE]
    /\ worker' = [worker EXCEPT ![w] = View(row)]
    /\ late' = Renewed(late, w)
    /\ counts' = [counts EXCEPT !.takes = @ + 1]
    /\ UNCHANGED <<returner, out, broken>>

Given(w, kind) == [kind |-> kind, by |-> w, count |-> 0, token |-> 0, fresh |-> worker[w].fresh,
                   old |-> FALSE]

(* What a worker writes next, by the row that it was shown; its clock says whether the callback's
   time is over. *)
Next1(w) ==
    LET it == worker[w] IN
    IF it.count = 0 THEN {[Given(w, "store") EXCEPT !.count = Function]}
    ELSE IF it.count = Callback THEN {}
    ELSE IF it.answer # 0 THEN {[Given(w, "store") EXCEPT !.count = Callback]}
    ELSE IF ~it.sent THEN
        IF counts.tokens = MaxTokens THEN {}
        ELSE {[Given(w, "open") EXCEPT !.token = counts.tokens + 1]}
    ELSE {IF row.over THEN [Given(w, "time out") EXCEPT !.count = Callback]
          ELSE [Given(w, "await") EXCEPT !.token = it.token]}

Opened(x) == IF x.kind = "open" THEN [counts EXCEPT !.tokens = x.token] ELSE counts

(* With its answer. A callback that is opened is sent. *)
Write(w) ==
    /\ worker[w].does = "works"
    /\ \E x \in Next1(w) \cup {Given(w, "renew")} :
        /\ CarryOut(x)
        /\ late' = After(x, late)
        /\ out' = IF x.kind = "open" THEN out \cup {x.token} ELSE out
        /\ counts' = Opened(x)
        /\ worker' = CASE x.kind = "renew" -> worker
                       [] x.kind = "await" -> [worker EXCEPT ![w] = Gone]
                       [] OTHER -> [Seen(x, worker) EXCEPT ![w] =
                                        [View(row') EXCEPT !.sent = @ \/ x.kind = "open"]]
    /\ UNCHANGED returner

(* Without an answer. A renewal is sent again; after anything else the attempt fails. *)
WriteLate(w) ==
    /\ worker[w].does = "works"
    /\ counts.late < MaxLate
    /\ \E x \in Next1(w) \cup {Given(w, "renew")} :
        /\ late' = late \cup {x}
        /\ counts' = [Opened(x) EXCEPT !.late = @ + 1]
        /\ worker' = CASE x.kind = "renew" -> worker
                       [] x.kind = "await" -> [worker EXCEPT ![w] = Gone]
                       [] OTHER -> [worker EXCEPT ![w].does = "fails"]
    /\ UNCHANGED <<row, returner, out, broken>>

Late ==
    /\ \E x \in late :
        /\ CarryOut(x)
        /\ late' = After(x, late \ {x})
        /\ worker' = Seen(x, worker)
    /\ UNCHANGED <<returner, out, counts>>

(* A write that was refused, while the worker has the job: it is shown the row. *)
LookAgain(w) ==
    /\ worker[w].does = "works"
    /\ HasIt(w)
    /\ LET it == View(row)
           sent == row.sent \/ (worker[w].sent /\ worker[w].token = row.token) IN
       worker' = [worker EXCEPT ![w] = [it EXCEPT !.sent = sent]]
    /\ worker' # worker
    /\ UNCHANGED <<row, returner, out, late, counts, broken>>

PutBack(w) ==
    /\ worker[w].does \in {"works", "fails"}
    /\ HasIt(w)
    /\ \E keep \in BOOLEAN :
        /\ row' = [row EXCEPT !.status = "RETRYING", !.owner = IF keep THEN @ ELSE None,
                              !.overdue = FALSE]
        /\ worker' = [worker EXCEPT ![w] = IF keep THEN [Idle EXCEPT !.does = "kept"] ELSE Gone]
    /\ late' = Renewed(late, w)
    /\ UNCHANGED <<returner, out, counts, broken>>

(* With a result, or cancelled. *)
Finish(w) ==
    /\ worker[w].does = "works"
    /\ HasIt(w)
    /\ row' = [row EXCEPT !.status = "ENDED", !.owner = None, !.overdue = FALSE, !.answer = 0]
    /\ worker' = [worker EXCEPT ![w] = Gone]
    /\ UNCHANGED <<returner, out, late, counts, broken>>

Stop(w) ==
    /\ worker[w].does \in {"works", "fails", "kept"}
    /\ worker' = [worker EXCEPT ![w] = Gone]
    /\ UNCHANGED <<row, returner, out, late, counts, broken>>

(* The sweeper: from a worker whose lease has run out, or what has waited. *)
Requeue ==
    /\ row.overdue
    /\ row.status \in {"PROCESSING", "RETRYING"}
    /\ row' = [row EXCEPT !.status = "PENDING", !.owner = None, !.overdue = FALSE, !.waits = FALSE]
    /\ UNCHANGED <<worker, returner, out, late, counts, broken>>

Expire ==
    /\ row.status \in {"PROCESSING", "RETRYING"}
    /\ ~row.overdue
    /\ row.waits => row.over
    /\ row' = [row EXCEPT !.overdue = TRUE]
    /\ UNCHANGED <<worker, returner, out, late, counts, broken>>

EndCallback ==
    /\ row.token # 0 /\ ~row.over
    /\ row' = [row EXCEPT !.over = TRUE]
    /\ UNCHANGED <<worker, returner, out, late, counts, broken>>

-----------------------------------------------------------------------------
(* Whoever has a token. What the row says of the callback is compared when it is read. *)

ReadToAnswer(r) ==
    /\ returner[r] = NoOne
    /\ row.token \in out
    /\ ~HasEnded /\ ~row.over /\ row.answer = 0
    /\ returner' = [returner EXCEPT ![r] =
                      [token |-> row.token, waits |-> row.status = "RETRYING" /\ row.owner = None]]
    /\ UNCHANGED <<row, worker, out, late, counts, broken>>

(* The time of a token is always the same, so that it is as it was read. *)
Open(name, r) ==
    /\ Holds(name \o ".digest", row.token = returner[r].token)
    /\ Holds(name \o ".expires", TRUE)
    /\ Holds(name \o ".unanswered", row.answer = 0)

Answers(r) ==
    If(row.token # returner[r].token, "a token answers its own callback")
    \cup If(row.answer # 0, "a token is used once")

AnswerWaiting(r) ==
    /\ returner[r].token # 0 /\ returner[r].waits
    /\ Holds("answer_waiting.status", row.status = "RETRYING")
    /\ Holds("answer_waiting.free", row.owner = None)
    /\ Open("answer_waiting", r)
    /\ row' = [row EXCEPT !.status = "PENDING", !.answer = returner[r].token, !.overdue = FALSE,
                          !.waits = FALSE]
    /\ Breaks(Answers(r) \cup If(HasEnded, "a request ends once")
              \cup If(IsBusy, "a valid lease is not taken"))
    /\ returner' = [returner EXCEPT ![r] = NoOne]
    /\ UNCHANGED <<worker, out, late, counts>>

AnswerBusy(r) ==
    /\ returner[r].token # 0 /\ ~returner[r].waits
    /\ \/ Holds("answer_busy.pending", row.status = "PENDING")
       \/ Holds("answer_busy.leased", row.owner # None)
    /\ Open("answer_busy", r)
    /\ row' = [row EXCEPT !.answer = returner[r].token]
    /\ Breaks(Answers(r) \cup If(HasEnded, "an ended request does not change")
              \cup If(row.waits, "a job that has its answer does not wait"))
    /\ returner' = [returner EXCEPT ![r] = NoOne]
    /\ UNCHANGED <<worker, out, late, counts>>

(* Refused, it reads again. *)
AnswerAgain(r) ==
    /\ returner[r] # NoOne
    /\ returner' = [returner EXCEPT ![r] = NoOne]
    /\ UNCHANGED <<row, worker, out, late, counts, broken>>

-----------------------------------------------------------------------------
Next ==
    \/ Late \/ Requeue \/ Expire \/ EndCallback
    \/ \E w \in Workers :
        \/ Take(w) \/ Write(w) \/ WriteLate(w) \/ LookAgain(w) \/ PutBack(w) \/ Finish(w) \/ Stop(w)
    \/ \E r \in Returners :
        \/ ReadToAnswer(r) \/ AnswerWaiting(r) \/ AnswerBusy(r) \/ AnswerAgain(r)

Spec == Init /\ [][Next]_vars

Symmetry == Permutations(Workers) \cup Permutations(Returners)

NothingBroken == broken = {}

(* What was accepted is there until its step is stored or the job ends. *)
AnswerWasSent == row.answer # 0 => row.answer \in out /\ row.answer = row.token
=============================================================================
