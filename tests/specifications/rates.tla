------------------------------- MODULE rates -------------------------------
(* The start times of a lane with a rate: invocations of dispatch reserve them for requests that have
   a slot, and the sweep removes rows of lanes.

   An invocation reads the request and then the lane's first row, and writes both in one
   transaction, or is refused and reads again. There may be several for one request, as records come
   again. It may stand still between any two steps, and its clock may be wrong. Times are numbers
   from 1 on; 0 is none. A condition is written as Holds(its name, what it says), so that TLC can
   drop it; conditions.toml says which writes of the code these are. *)
EXTENDS Integers, TLC

CONSTANTS
    Dropped,      \* the conditions that are left out
    Requests,
    Calls,        \* invocations that may be at work at the same time
    Pace,         \* the time between two starts
    Ahead,        \* how far away a start may be
    Clocks,       \* by how much a clock is fast
    MaxTime

VARIABLES
    time,
    next,         \* `next_start` of the lane's first row
    status,       \* by request: "pending", "ended"
    start,        \* by request: `starts_at`
    call,         \* by call: what it does next, its request, its clock's time, and what it has read
    removes,      \* whether the sweep has found a row that is not needed
    broken        \* the promises that a step has broken

vars == <<time, next, status, start, call, removes, broken>>

Holds(condition, what) == condition \in Dropped \/ what
Breaks(promises) == broken' = broken \cup promises
If(condition, promise) == IF condition THEN {promise} ELSE {}
Later(one, other) == IF one > other THEN one ELSE other

None == "none"
Idle == [at |-> "idle", request |-> None, now |-> 0, read |-> 0]

Init ==
    /\ time = 1 /\ next = 0
    /\ status = [r \in Requests |-> "pending"]
    /\ start = [r \in Requests |-> 0]
    /\ call = [c \in Calls |-> Idle]
    /\ removes = FALSE
    /\ broken = {}

Tick ==
    /\ time < MaxTime
    /\ time' = time + 1
    /\ UNCHANGED <<next, status, start, call, removes, broken>>

(* Taken by a worker, or cancelled. *)
End(r) ==
    /\ status[r] = "pending"
    /\ status' = [status EXCEPT ![r] = "ended"]
    /\ UNCHANGED <<time, next, start, call, removes, broken>>

Begin(c) ==
    /\ call[c].at = "idle"
    /\ \E r \in Requests, clock \in Clocks :
        call' = [call EXCEPT ![c] = [Idle EXCEPT !.at = "asks", !.request = r, !.now = time + clock]]
    /\ UNCHANGED <<time, next, status, start, removes, broken>>

(* One that has a start time, or needs none any more, is not given another. *)
ReadRequest(c) ==
    /\ call[c].at = "asks"
    /\ LET r == call[c].request
           needs == start[r] = 0 /\ status[r] = "pending" IN
       call' = [call EXCEPT ![c] = IF needs THEN [@ EXCEPT !.at = "looks"] ELSE Idle]
    /\ UNCHANGED <<time, next, status, start, removes, broken>>

StartOf(it) == Later(it.now, it.read)

ReadLane(c) ==
    /\ call[c].at = "looks"
    /\ LET it == [call[c] EXCEPT !.at = "reserves", !.read = next] IN
       call' = [call EXCEPT ![c] = IF StartOf(it) < it.now + Ahead THEN it ELSE Idle]
    /\ UNCHANGED <<time, next, status, start, removes, broken>>

Reserve(c) ==
    LET it == call[c]
        r == it.request IN
    /\ it.at = "reserves"
    /\ \/ Holds("reserve.first", next = 0)
       \/ Holds("reserve.read", next = it.read)
    /\ Holds("reserve.pending", status[r] = "pending")
    /\ Holds("reserve.once", start[r] = 0)
    /\ next' = StartOf(it) + Pace
    /\ start' = [start EXCEPT ![r] = StartOf(it)]
    /\ call' = [call EXCEPT ![c] = Idle]
    /\ Breaks(If(start[r] # 0, "a start time stays")
              \cup If(status[r] # "pending", "only what is PENDING gets a start time"))
    /\ UNCHANGED <<time, status, removes>>

(* Refused, it reads again; or it stops. *)
Again(c) ==
    /\ call[c].at = "reserves"
    /\ \/ call' = [call EXCEPT ![c] = [@ EXCEPT !.at = "asks", !.read = 0]]
       \/ call' = [call EXCEPT ![c] = Idle]
    /\ UNCHANGED <<time, next, status, start, removes, broken>>

(* The sweep, for a row that had no next start when it was read. *)
FindRow ==
    /\ ~removes /\ next = 0
    /\ removes' = TRUE
    /\ UNCHANGED <<time, next, status, start, call, broken>>

RemoveRow ==
    /\ removes
    /\ removes' = FALSE
    /\ LET done == Holds("remove.unrated", next = 0) IN
       /\ next' = IF done THEN 0 ELSE next
       /\ Breaks(If(done /\ next # 0, "a lane's next start stays"))
    /\ UNCHANGED <<time, status, start, call>>

Next ==
    \/ Tick \/ FindRow \/ RemoveRow
    \/ \E r \in Requests : End(r)
    \/ \E c \in Calls : Begin(c) \/ ReadRequest(c) \/ ReadLane(c) \/ Reserve(c) \/ Again(c)

Spec == Init /\ [][Next]_vars

Symmetry == Permutations(Requests) \cup Permutations(Calls)

NothingBroken == broken = {}

(* So no window of a minute has more of them than the rate. *)
StartsApart ==
    \A r, q \in Requests :
        r # q /\ start[r] # 0 /\ start[q] # 0 /\ start[r] <= start[q] => start[q] - start[r] >= Pace
NextIsFree == \A r \in Requests : start[r] # 0 => next >= start[r] + Pace
=============================================================================
