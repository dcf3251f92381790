------------------------------- MODULE claims -------------------------------
(* The claim on one workspace: acquire, take, take over, renew, prolong, release, sweep, and the
   clean-up after an execution that has ended.

   A step of this module that writes is one conditional write of the code, or is refused by it;
   conditions.toml says which. A condition is written as Holds(its name, what it says), so that
   TLC can drop it.

   Time passes in units of two seconds, the margin for clocks that differ: a function may read its
   clock at `now` or one unit ahead. A write whose answer is lost leaves its caller as it was, so
   the caller repeats it; callers may stop for ever at any step. *)
EXTENDS Integers, Sequences, TLC

CONSTANTS
    Dropped,      \* the conditions that are left out
    Executions,   \* runs of the job flow; each wants the workspace once
    Workers,      \* job workers; each has a name of its own
    Offsets,      \* how far a clock may be ahead of `now`
    MaxTime

Margin == 1
Ttl == 2
Hide == 1         \* for how long a taker certainly works, after its last renewal
PerUnit == 10     \* an absent row's fence starts at the clock, in smaller units

None == "none"

VARIABLES
    now,
    row,          \* of active-jobs
    top,          \* the largest fence of the workspace so far
    ids,          \* the number of claim ids so far
    execution,    \* by execution: what it does, and the claim that it knows
    worker,       \* by worker: what it does, and the job that it knows
    sweeper,      \* the claim that sweep-claims has read
    broken        \* the promises that a step has broken

vars == <<now, row, top, ids, execution, worker, sweeper, broken>>

Holds(condition, what) == condition \in Dropped \/ what
Breaks(promise, when) == broken' = IF when THEN broken \cup {promise} ELSE broken
Clocks == {now + offset : offset \in Offsets}

Absent == [state |-> "absent", claim |-> 0, fence |-> 0, first |-> 0, expires |-> 0,
           taker |-> None, until |-> 0, owner |-> None]
Idle == [does |-> "idle", job |-> None, claim |-> 0, fence |-> 0, asked |-> 0, previous |-> None,
         lease |-> 0]

Init ==
    /\ now = 0
    /\ row = Absent
    /\ top = 0
    /\ ids = 0
    /\ execution = [e \in Executions |-> [does |-> "asks", claim |-> 0, fence |-> 0]]
    /\ worker = [w \in Workers |-> Idle]
    /\ sweeper = [owner |-> None, claim |-> 0]
    /\ broken = {}

-----------------------------------------------------------------------------
(* The conditions of claims, as jobplane_keys has them. A released row has no claim: 0. *)

Held(name, claim, fence) ==
    /\ Holds(name \o ".state", row.state = "held")
    /\ Holds(name \o ".claim", row.claim = claim)
    /\ Holds(name \o ".fence", row.fence = fence)

Issued(name, claim, fence) ==
    /\ Holds(name \o ".state", row.state = "held")
    /\ Holds(name \o ".claim", row.claim = claim)
    /\ \/ Holds(name \o ".fence", row.fence = fence)
       \/ /\ Holds(name \o ".later", row.fence >= fence)
          /\ Holds(name \o ".first", row.first # 0 /\ row.first <= fence)

Owned(name, owner, claim) ==
    /\ Holds(name \o ".owner", row.owner = owner)
    /\ Holds(name \o ".state", row.state = "held")
    /\ Holds(name \o ".claim", row.claim = claim)

Freed == [row EXCEPT !.state = "free", !.claim = 0, !.first = 0, !.expires = 0, !.taker = None,
                     !.until = 0, !.owner = None]

-----------------------------------------------------------------------------
(* The job flow. *)

Available(clock) ==
    \/ Holds("acquire.absent", row.state = "absent")
    \/ Holds("acquire.free", row.state = "free")
    \/ Holds("acquire.expired", row.state = "held" /\ row.expires <= clock - Margin)

(* Also by an execution that was aborted while it called. The answer may be lost. *)
Acquire(e) ==
    /\ execution[e].does \in {"asks", "aborted"}
    /\ \E clock \in Clocks :
        /\ Available(clock)
        /\ LET fence == IF row.state = "absent" THEN clock * PerUnit + 1 ELSE row.fence + 1 IN
           /\ row' = [state |-> "held", claim |-> ids + 1, fence |-> fence, first |-> 0,
                      expires |-> clock + Ttl, taker |-> None, until |-> 0, owner |-> e]
           /\ ids' = ids + 1
           /\ top' = IF fence > top THEN fence ELSE top
           /\ Breaks("a fence grows", fence <= top)
           /\ \/ execution[e].does = "asks" /\ execution' = execution
              \/ execution' = [execution EXCEPT ![e] =
                    IF @.does = "asks" THEN [does |-> "runs", claim |-> ids + 1, fence |-> fence]
                    ELSE [@ EXCEPT !.does = "ended"]]
    /\ UNCHANGED <<now, worker, sweeper>>

(* A refused write whose row is that of an earlier attempt of the same execution. *)
AcquireAgain(e) ==
    /\ execution[e].does = "asks"
    /\ row.state = "held"
    /\ row.owner = e
    /\ \E clock \in Clocks : row.expires > clock
    /\ execution' = [execution EXCEPT ![e] =
                        [does |-> "runs", claim |-> row.claim, fence |-> row.fence]]
    /\ UNCHANGED <<now, row, top, ids, worker, sweeper, broken>>

(* A refused write whose row is of a job of the same thread: its claim is renewed next. *)
Join(e) ==
    /\ execution[e].does = "asks"
    /\ row.state = "held"
    /\ row.owner # e
    /\ \E clock \in Clocks : row.expires > clock
    /\ execution' = [execution EXCEPT ![e] =
                        [does |-> "joins", claim |-> row.claim, fence |-> row.fence]]
    /\ UNCHANGED <<now, row, top, ids, worker, sweeper, broken>>

Prolong(e) ==
    /\ execution[e].does = "joins"
    /\ \E clock \in Clocks :
        /\ Held("prolong", execution[e].claim, execution[e].fence)
        /\ Holds("prolong.live", row.expires > clock)
        /\ Holds("prolong.longer", row.expires < clock + Ttl)
        /\ row' = [row EXCEPT !.expires = clock + Ttl]
        /\ broken' = broken
            \cup (IF row.state = "held" /\ clock + Ttl < row.expires
                  THEN {"a message never shortens a claim"} ELSE {})
            \cup (IF row.expires <= now THEN {"an expired claim is not renewed"} ELSE {})
            \cup (IF row.claim # execution[e].claim THEN {"a write is for its own claim"} ELSE {})
    /\ execution' = [execution EXCEPT ![e] = [does |-> "joined", claim |-> 0, fence |-> 0]]
    /\ UNCHANGED <<now, top, ids, worker, sweeper>>

(* An execution is aborted or runs out of time; its last calls may still be under way. *)
Abort(e) ==
    /\ execution[e].does \in {"asks", "runs"}
    /\ execution' = [execution EXCEPT ![e].does = IF @ = "asks" THEN "aborted" ELSE "ended"]
    /\ UNCHANGED <<now, row, top, ids, worker, sweeper, broken>>

(* The execution itself, or handle-timeout for it, once or again. *)
ReleaseIssued(e) ==
    /\ execution[e].does = "ended"
    /\ execution[e].claim # 0
    /\ Issued("release_issued", execution[e].claim, execution[e].fence)
    /\ row' = Freed
    /\ Breaks("a release frees its own claim", row.claim # execution[e].claim)
    /\ UNCHANGED <<now, top, ids, execution, worker, sweeper>>

(* sweep-claims, in two steps: what it has read may have changed. handle-timeout does the same for
   an execution without input. *)
Sweep ==
    /\ row.state = "held"
    /\ execution[row.owner].does \in {"ended", "aborted"}
    /\ sweeper' = [owner |-> row.owner, claim |-> row.claim]
    /\ UNCHANGED <<now, row, top, ids, execution, worker, broken>>

ReleaseOwned ==
    /\ sweeper.owner # None
    /\ Owned("release_owned", sweeper.owner, sweeper.claim)
    /\ row' = Freed
    /\ Breaks("a release frees its own claim", row.claim # sweeper.claim)
    /\ sweeper' = [owner |-> None, claim |-> 0]
    /\ UNCHANGED <<now, top, ids, execution, worker>>

-----------------------------------------------------------------------------
(* Job workers. A worker works while now < lease. *)

(* A delivery of the job's message, which may be one of several. *)
Receive(w, e) ==
    /\ worker[w].does = "idle"
    /\ execution[e].does \in {"runs", "ended"}
    /\ execution[e].claim # 0
    /\ worker' = [worker EXCEPT ![w] = [Idle EXCEPT
                    !.does = "takes", !.job = e, !.claim = execution[e].claim,
                    !.fence = execution[e].fence, !.asked = now]]
    /\ UNCHANGED <<now, row, top, ids, execution, sweeper, broken>>

Working(w) ==
    [worker EXCEPT ![w] = [@ EXCEPT !.does = "works", !.fence = row'.fence, !.asked = 0,
                                    !.previous = None, !.lease = worker[w].asked + Ttl]]

(* No other worker has taken the job from a worker that renewed so recently. *)
Certain(w) == now < worker[w].lease - Ttl + Hide

Take(w) ==
    LET it == worker[w] IN
    /\ it.does = "takes"
    /\ \E clock \in Clocks :
        /\ Issued("take", it.claim, it.fence)
        /\ Holds("take.live", row.expires > clock)
        /\ \/ Holds("take.untaken", row.taker = None)
           \/ Holds("take.mine", row.taker = w)
        /\ row' = [row EXCEPT !.expires = clock + Ttl, !.taker = w, !.until = clock + Hide]
        /\ broken' = broken
            \cup (IF row.claim # it.claim THEN {"a write is for its own claim"} ELSE {})
            \cup (IF row.expires <= now THEN {"an expired claim is not renewed"} ELSE {})
        /\ \/ worker' = worker
           \/ worker' = Working(w)
    /\ UNCHANGED <<now, top, ids, execution, sweeper>>

(* Refused: another worker has the job, and is named in the answer. *)
Refused(w) ==
    LET it == worker[w] IN
    /\ it.does = "takes"
    /\ row.taker \notin {None, w}
    /\ worker' = [worker EXCEPT ![w].does = "takes over", ![w].previous = row.taker]
    /\ UNCHANGED <<now, row, top, ids, execution, sweeper, broken>>

TakeOver(w) ==
    LET it == worker[w] IN
    /\ it.does = "takes over"
    /\ \E clock \in Clocks :
        /\ Issued("take_over", it.claim, it.fence)
        /\ Holds("take_over.live", row.expires > clock)
        /\ Holds("take_over.previous", row.taker = it.previous)
        /\ Holds("take_over.quiet", row.until <= clock - Margin)
        /\ row' = [row EXCEPT !.expires = clock + Ttl, !.taker = w, !.until = clock + Hide,
                              !.first = IF @ = 0 THEN row.fence ELSE @, !.fence = @ + 1]
        /\ top' = IF row.fence + 1 > top THEN row.fence + 1 ELSE top
        /\ broken' = broken
            \cup (IF row.claim # it.claim THEN {"a write is for its own claim"} ELSE {})
            \cup (IF row.expires <= now THEN {"an expired claim is not renewed"} ELSE {})
        /\ \/ worker' = worker
           \/ worker' = Working(w)
    /\ UNCHANGED <<now, ids, execution, sweeper>>

(* The answer to the write was lost, and its repetition is refused: the row names this worker. *)
TakenOver(w) ==
    LET it == worker[w] IN
    /\ it.does = "takes over"
    /\ row.claim = it.claim
    /\ row.taker = w
    /\ row' = row
    /\ worker' = Working(w)
    /\ UNCHANGED <<now, top, ids, execution, sweeper, broken>>

GiveBack(w) ==
    /\ worker[w].does \in {"takes", "takes over"}
    /\ worker' = [worker EXCEPT ![w] = Idle]
    /\ UNCHANGED <<now, row, top, ids, execution, sweeper, broken>>

AskToRenew(w) ==
    /\ worker[w].does = "works"
    /\ worker' = [worker EXCEPT ![w].does = "renews", ![w].asked = now]
    /\ UNCHANGED <<now, row, top, ids, execution, sweeper, broken>>

(* The call may arrive after its worker has given up. *)
Renew(w) ==
    LET it == worker[w] IN
    /\ it.does = "renews"
    /\ \E clock \in Clocks :
        /\ Held("renew", it.claim, it.fence)
        /\ Holds("renew.live", row.expires > clock)
        /\ row' = [row EXCEPT !.expires = clock + Ttl, !.until = clock + Hide]
        /\ broken' = broken
            \cup (IF row.claim # it.claim THEN {"a write is for its own claim"} ELSE {})
            \cup (IF row.expires <= now THEN {"an expired claim is not renewed"} ELSE {})
        /\ \/ worker' = worker
           \/ it.lease > now /\ worker' = Working(w)
    /\ UNCHANGED <<now, top, ids, execution, sweeper>>

(* A worker that is refused, whose lease has ended, or that is killed. Its name never comes again. *)
Stop(w) ==
    /\ worker[w].does \notin {"idle", "stopped"}
    /\ worker' = [worker EXCEPT ![w] = [Idle EXCEPT !.does = "stopped"]]
    /\ UNCHANGED <<now, row, top, ids, execution, sweeper, broken>>

(* Step Functions accept one end; without certainty the worker renews first. *)
Report(w) ==
    LET it == worker[w] IN
    /\ it.does = "works"
    /\ Certain(w)
    /\ execution[it.job].does = "runs"
    /\ execution' = [execution EXCEPT ![it.job].does = "ended"]
    /\ worker' = [worker EXCEPT ![w].does = "releases"]
    /\ Breaks("an end comes from the taker", row.claim = it.claim /\ row.taker # w)
    /\ UNCHANGED <<now, row, top, ids, sweeper>>

(* A worker without an execution releases for itself. *)
ReleaseHeld(w) ==
    LET it == worker[w] IN
    /\ it.does \in {"works", "renews", "releases"}
    /\ Held("release_held", it.claim, it.fence)
    /\ row' = Freed
    /\ broken' = broken
        \cup (IF row.claim # it.claim THEN {"a release frees its own claim"} ELSE {})
        \cup (IF row.claim = it.claim /\ row.taker # w THEN {"a worker releases its own job"}
              ELSE {})
    /\ execution' = [execution EXCEPT ![it.job].does = "ended"]
    /\ worker' = [worker EXCEPT ![w] = [Idle EXCEPT !.does = "stopped"]]
    /\ UNCHANGED <<now, top, ids, sweeper>>

-----------------------------------------------------------------------------
(* Time passes; a worker whose lease ends stops by its own clock, without a call. *)
Tick ==
    /\ now < MaxTime
    /\ now' = now + 1
    /\ worker' = [w \in Workers |->
                    IF worker[w].does \in {"works", "renews"} /\ worker[w].lease <= now + 1
                    THEN IF worker[w].does = "renews"
                         THEN [worker[w] EXCEPT !.lease = 0] ELSE [Idle EXCEPT !.does = "stopped"]
                    ELSE worker[w]]
    /\ UNCHANGED <<row, top, ids, execution, sweeper, broken>>

(* DynamoDB deletes a row long after the last claim, when the clock is ahead of its fence. *)
Purge ==
    /\ row.state = "free" \/ (row.state = "held" /\ row.expires + Margin < now)
    /\ now * PerUnit > row.fence
    /\ row' = Absent
    /\ UNCHANGED <<now, top, ids, execution, worker, sweeper, broken>>

Next ==
    \/ Tick \/ Purge \/ Sweep \/ ReleaseOwned
    \/ \E e \in Executions :
        \/ Acquire(e) \/ AcquireAgain(e) \/ Join(e) \/ Prolong(e) \/ Abort(e) \/ ReleaseIssued(e)
    \/ \E w \in Workers :
        \/ \E e \in Executions : Receive(w, e)
        \/ Take(w) \/ Refused(w) \/ TakeOver(w) \/ TakenOver(w) \/ GiveBack(w)
        \/ AskToRenew(w) \/ Renew(w) \/ Stop(w) \/ Report(w) \/ ReleaseHeld(w)

(* So that every claim ends: time passes, and the sweeper and the flow's retries go on. *)
Fairness ==
    /\ WF_vars(Tick) /\ WF_vars(Sweep) /\ WF_vars(ReleaseOwned)

Spec == Init /\ [][Next]_vars /\ Fairness

-----------------------------------------------------------------------------
Symmetry == Permutations(Executions) \cup Permutations(Workers)

Live(w) == worker[w].does \in {"works", "renews", "releases"}

NothingBroken == broken = {}

(* Two workers never have the same fence. *)
OneWorkerPerFence ==
    \A v, w \in Workers : v # w /\ Live(v) /\ Live(w) => worker[v].fence # worker[w].fence

(* While a worker believes that it has the workspace, no other claim gets it, unless its execution has
   ended: a worker hears of that later. *)
OneHolder ==
    \A w \in Workers :
        /\ worker[w].does \in {"works", "renews"}
        /\ now < worker[w].lease
        /\ execution[worker[w].job].does = "runs"
        => row.claim = worker[w].claim

(* Until a worker is no longer certain, no other worker has its job. *)
CertainTaker ==
    \A w \in Workers : worker[w].does = "works" /\ Certain(w) =>
        row.claim # worker[w].claim \/ row.taker = w

(* The fence of the row is the largest that was ever given. *)
LargestFence == row.state # "absent" => row.fence = top

(* A claim of an execution that has ended is released or runs out. *)
EveryClaimEnds ==
    \A e \in Executions :
        (row.owner = e /\ execution[e].does = "ended") ~> (row.owner # e \/ now = MaxTime)
=============================================================================
