------------------------------- MODULE lanes -------------------------------
(* A lane of one row, and the requests that need one of its slots: the invocations of dispatch for
   a request that became PENDING and for one that ended, its sweep, and what else changes a
   request.

   A step of an invocation is one call of the code, in the code's order: enter, send; or enter, wait,
   mark the lane, look at it and at the index, enter, send, leave the queue. A write is one
   conditional write of the code, or is refused by it; conditions.toml says which. A condition is
   written as Holds(its name, what it says), so that TLC can drop it.

   An invocation may stop after any step. The stream then delivers its record again; it may also
   give the record up. A write that is repeated because its answer was lost finds its own result,
   as after such a stop. The index `waiting` shows a change of a request later. The mark
   `waiting_at` is "young" until the index shows what waited when it was set. *)
EXTENDS Integers, FiniteSets, Sequences

CONSTANTS
    Dropped,      \* the conditions that are left out
    Requests,     \* numbers, in the order of the queue
    Limit,        \* of slots
    Looks,        \* at the queue, by an invocation for a record; the sweep looks once
    MaxBusy,      \* invocations at the same time
    MaxStops,     \* of invocations before their end
    MaxLost,      \* records that the stream gives up
    MaxRetries,   \* of requests
    MaxCancelled

Sweep == 0
Actors == Requests \cup {Sweep}

VARIABLES
    status,       \* by request: "none", "pending", "running", "ended"
    queued,       \* the requests whose row has `waiting_lane`
    shown,        \* the requests that the index `waiting` shows
    messages,     \* the requests with a message in the queue `jobs`
    begun,        \* the requests whose record of PENDING is not dealt with
    over,         \* the requests whose record of an end is not dealt with
    exists,       \* whether the lane has its row
    slots,        \* of the row
    mark,         \* of the row: "no", "young", "old"
    actor,        \* by request: the invocation for its records; and the sweep
    counts,       \* of what is bounded
    broken        \* the promises that a step has broken

request == <<status, queued, shown, messages, begun, over>>
lane == <<exists, slots, mark>>
vars == <<request, lane, actor, counts, broken>>

Holds(condition, what) == condition \in Dropped \/ what
Breaks(when, promise) == broken' = IF when THEN broken \cup {promise} ELSE broken
Count(name, most) == counts[name] < most /\ counts' = [counts EXCEPT ![name] = @ + 1]

(* record: what it is for, which comes again if it stops. known: what it knows to wait. free, saw, found: the lane at its last look; later `free` is how
   many slots are left. same: the mark is still the one that was found. wanted: what it enters.
   left: what it has still to take out of the queue. gone: what had ended. *)
Idle == [at |-> "idle", record |-> "none", known |-> {}, looks |-> 0, free |-> 0, saw |-> {}, found |-> "no",
         same |-> FALSE, keys |-> {}, wanted |-> {}, left |-> {}, gone |-> {}, empty |-> FALSE]

Init ==
    /\ status = [r \in Requests |-> "none"]
    /\ queued = {} /\ shown = {} /\ messages = {} /\ begun = {} /\ over = {}
    /\ exists = FALSE /\ slots = {} /\ mark = "no"
    /\ actor = [a \in Actors |-> Idle]
    /\ counts = [stops |-> 0, lost |-> 0, retries |-> 0, cancelled |-> 0]
    /\ broken = {}

MayStart == Cardinality({a \in Actors : actor[a].at # "idle"}) < MaxBusy
First(most, all) == {r \in all : Cardinality({q \in all : q < r}) < most}
Least(one, other) == IF one < other THEN one ELSE other
(* The sweep removes a row that it found without slots and without a mark. *)
Ends(it) == IF it.empty THEN [Idle EXCEPT !.at = "removes"] ELSE Idle
Free == IF Limit > Cardinality(slots) THEN Limit - Cardinality(slots) ELSE 0

-----------------------------------------------------------------------------
(* Requests: router, workers, the sweeper of leases, the index. *)

Enqueue(r) ==
    /\ status[r] = "none"
    /\ status' = [status EXCEPT ![r] = "pending"]
    /\ begun' = begun \cup {r}
    /\ UNCHANGED <<queued, shown, messages, over, lane, actor, counts, broken>>

Cancel(r) ==
    /\ status[r] = "pending"
    /\ Count("cancelled", MaxCancelled)
    /\ status' = [status EXCEPT ![r] = "ended"]
    /\ queued' = queued \ {r}
    /\ over' = over \cup {r}
    /\ UNCHANGED <<shown, messages, begun, lane, actor, broken>>

(* A worker asks for no slot: it takes what has a message. *)
Take(r) ==
    /\ r \in messages
    /\ messages' = messages \ {r}
    /\ status' = [status EXCEPT ![r] = IF @ = "pending" THEN "running" ELSE @]
    /\ queued' = IF status[r] = "pending" THEN queued \ {r} ELSE queued
    /\ UNCHANGED <<shown, begun, over, lane, actor, counts, broken>>

End(r) ==
    /\ status[r] = "running"
    /\ status' = [status EXCEPT ![r] = "ended"]
    /\ over' = over \cup {r}
    /\ UNCHANGED <<queued, shown, messages, begun, lane, actor, counts, broken>>

(* It keeps its slot, and needs a message again. *)
Retry(r) ==
    /\ status[r] = "running"
    /\ Count("retries", MaxRetries)
    /\ status' = [status EXCEPT ![r] = "pending"]
    /\ begun' = begun \cup {r}
    /\ UNCHANGED <<queued, shown, messages, over, lane, actor, broken>>

(* The sweeper of leases finds a request whose record was given up. *)
Requeue(r) ==
    /\ counts.lost > 0
    /\ status[r] = "pending"
    /\ r \notin begun
    /\ r \notin messages
    /\ begun' = begun \cup {r}
    /\ UNCHANGED <<status, queued, shown, messages, over, lane, actor, counts, broken>>

Show(r) ==
    /\ (r \in shown) # (r \in queued)
    /\ shown' = IF r \in queued THEN shown \cup {r} ELSE shown \ {r}
    /\ UNCHANGED <<status, queued, messages, begun, over, lane, actor, counts, broken>>

(* What waits and has no mark of its own yet is still known to its invocation. *)
Age ==
    /\ mark = "young"
    /\ \A r \in queued \ (shown \cup begun \cup slots) :
        actor[r].at \in {"waits", "marks"} \/ counts.lost > 0
    /\ mark' = "old"
    /\ UNCHANGED <<request, exists, slots, actor, counts, broken>>

(* A record that was not dealt with in ten attempts. *)
GiveUp(r) ==
    /\ actor[r].at = "idle"
    /\ r \in begun \cup over
    /\ Count("lost", MaxLost)
    /\ begun' = begun \ {r}
    /\ over' = IF r \in begun THEN over ELSE over \ {r}
    /\ UNCHANGED <<status, queued, shown, messages, lane, actor, broken>>

(* An invocation that has done everything, and stopped before its answer. *)
Redeliver(r) ==
    /\ status[r] \in {"pending", "running"}
    /\ r \notin begun
    /\ actor[r].at = "idle"
    /\ Count("stops", MaxStops)
    /\ begun' = begun \cup {r}
    /\ UNCHANGED <<status, queued, shown, messages, over, lane, actor, broken>>

-----------------------------------------------------------------------------
(* An invocation for a request that became PENDING. *)

HasRoom(name, new) ==
    \/ Holds(name \o ".absent", slots = {})
    \/ Holds(name \o ".room", Cardinality(slots) <= Limit - Cardinality(new))

Enter(a) ==
    /\ actor[a].at = "idle" /\ MayStart
    /\ a \in begun
    /\ LET done == HasRoom("enter", {a}) /\ Holds("enter.unmarked", mark = "no") IN
       /\ slots' = IF done THEN slots \cup {a} ELSE slots
       /\ exists' = (exists \/ done)
       /\ Breaks(done /\ a \notin slots /\ mark # "no", "a newer request does not overtake")
    /\ begun' = begun \ {a}
    /\ actor' = [actor EXCEPT ![a] = [Idle EXCEPT
                    !.record = "begun", !.at = IF a \in slots' THEN "sends" ELSE "waits"]]
    /\ UNCHANGED <<status, queued, shown, messages, over, mark, counts>>

Send(a) ==
    /\ actor[a].at = "sends"
    /\ messages' = messages \cup {a}
    /\ actor' = [actor EXCEPT ![a] = Idle]
    /\ UNCHANGED <<status, queued, shown, begun, over, lane, counts, broken>>

WaitForLane(a) ==
    /\ actor[a].at = "waits"
    /\ LET done == Holds("wait.pending", status[a] = "pending") IN
       /\ queued' = IF done THEN queued \cup {a} ELSE queued
       /\ Breaks(done /\ status[a] # "pending", "only what is PENDING waits")
       /\ actor' = [actor EXCEPT ![a] =
                      IF done THEN [@ EXCEPT !.at = "marks", !.known = {a}] ELSE Idle]
    /\ UNCHANGED <<status, shown, messages, begun, over, lane, counts>>

(* Its clock may be behind that of the invocation that has marked the lane. *)
SetWaiting(a) ==
    /\ actor[a].at \in {"marks", "marks again"}
    /\ \E later \in (IF mark = "no" THEN {TRUE} ELSE BOOLEAN) :
        LET done == \/ Holds("set_waiting.absent", mark = "no")
                    \/ Holds("set_waiting.later", mark # "no" /\ later) IN
        /\ mark' = IF done THEN "young" ELSE mark
        /\ exists' = (exists \/ done)
        /\ Breaks(done /\ ~later, "a mark grows")
        /\ actor' = [b \in Actors |->
                        IF b # a THEN [actor[b] EXCEPT !.same = @ /\ ~done]
                        ELSE IF actor[a].at = "marks" THEN [actor[a] EXCEPT !.at = "looks"]
                        ELSE [actor[a] EXCEPT !.at = "asks", !.found = "young"]]
    /\ UNCHANGED <<request, slots, counts>>

-----------------------------------------------------------------------------
(* What an invocation does for the queue. *)

Again(it, a) ==
    IF a # Sweep /\ it.looks < Looks
    THEN [Idle EXCEPT !.at = "looks", !.record = it.record, !.known = it.known, !.looks = it.looks]
    ELSE Ends(it)

Conclude(it, a) ==
    IF it.gone # {} THEN [it EXCEPT !.keys = {}, !.wanted = {}, !.at = "gives back"]
    ELSE IF it.free = 0 \/ it.found = "no" THEN Ends(it)
    ELSE IF it.found = "old" THEN [Idle EXCEPT
        !.at = "clears", !.record = it.record, !.same = it.same, !.empty = it.empty]
    ELSE Again(it, a)

(* The index is asked for as many as the lane has slots, and for one at least. *)
Asked(it, a) ==
    LET most == it.free + Cardinality(it.saw)
        queue == First(IF most > 0 THEN most ELSE 1, shown) \cup it.known
        first == First(it.free, queue \ it.saw)
        next == [it EXCEPT !.free = IF Cardinality(first) < @ THEN 1 ELSE 0, !.saw = {},
                           !.keys = first, !.wanted = first, !.left = queue \cap it.saw] IN
    IF first # {} THEN [next EXCEPT !.at = "enters"]
    ELSE IF next.left # {} THEN [next EXCEPT !.at = "tells"]
    ELSE Conclude(next, a)

(* At the lane, and then at the index: what happens between these two is as if it were earlier. *)
Look(a) ==
    /\ actor[a].at = "looks"
    /\ LET it == [actor[a] EXCEPT !.looks = @ + 1, !.free = Free, !.saw = slots, !.found = mark,
                                  !.same = mark = "old"] IN
       actor' = [actor EXCEPT ![a] = IF mark = "no" /\ it.known # {}
                                     THEN [it EXCEPT !.at = "marks again"] ELSE Asked(it, a)]
    /\ UNCHANGED <<request, lane, counts, broken>>

Ask(a) ==
    /\ actor[a].at = "asks"
    /\ actor' = [actor EXCEPT ![a] = Asked(@, a)]
    /\ UNCHANGED <<request, lane, counts, broken>>

(* If fewer slots are free than wanted, fewer are entered, the first ones first. *)
EnterNext(a) ==
    /\ actor[a].at = "enters"
    /\ LET it == actor[a]
           done == HasRoom("enter", it.wanted)
           now == IF done THEN slots \cup it.wanted ELSE slots
           wanted == IF done THEN {} ELSE First(Free, it.keys \ now)
           left == it.left \cup (it.keys \cap now) IN
       /\ slots' = now
       /\ exists' = (exists \/ done)
       /\ actor' = [actor EXCEPT ![a] =
                      IF wanted # {} THEN [it EXCEPT !.wanted = wanted]
                      ELSE IF left # {}
                      THEN [it EXCEPT !.at = "tells", !.left = left, !.keys = {}, !.wanted = {}]
                      ELSE Conclude(it, a)]
    /\ UNCHANGED <<request, mark, counts, broken>>

SendNext(a) ==
    /\ actor[a].at = "tells"
    /\ messages' = messages \cup actor[a].left
    /\ actor' = [actor EXCEPT ![a].at = "takes out"]
    /\ UNCHANGED <<status, queued, shown, begun, over, lane, counts, broken>>

LeaveQueue(a) ==
    /\ actor[a].at = "takes out"
    /\ \E r \in actor[a].left :
        LET done == /\ Holds("leave_queue.pending", status[r] = "pending")
                    /\ Holds("leave_queue.waits", r \in queued)
            it == [actor[a] EXCEPT !.left = @ \ {r},
                                   !.gone = IF status[r] = "ended" THEN @ \cup {r} ELSE @] IN
        /\ queued' = IF done THEN queued \ {r} ELSE queued
        /\ Breaks(done /\ status[r] # "pending", "a lease is its worker's")
        /\ actor' = [actor EXCEPT ![a] = IF it.left = {} THEN Conclude(it, a) ELSE it]
    /\ UNCHANGED <<status, shown, messages, begun, over, lane, counts>>

(* A row without slots has no limit: only `enter` and `set_waiting` write it. *)
LeaveRow(keys) ==
    LET done == Holds("leave.exists", exists) IN
    /\ slots' = IF done THEN slots \ keys ELSE slots
    /\ exists' = (exists \/ done)
    /\ Breaks(done /\ ~exists, "a row has its limit")
    /\ UNCHANGED mark

(* Requests that had been cancelled while the index still showed them. *)
GiveBack(a) ==
    /\ actor[a].at = "gives back"
    /\ LeaveRow(actor[a].gone)
    /\ actor' = [actor EXCEPT ![a] = Again(@, a)]
    /\ UNCHANGED <<request, counts>>

ClearWaiting(a) ==
    /\ actor[a].at = "clears"
    /\ mark' = IF Holds("clear_waiting.read", actor[a].same) THEN "no" ELSE mark
    /\ Breaks(mark' # mark /\ ~actor[a].same, "a newer mark stays")
    /\ actor' = [b \in Actors |-> IF b = a THEN Ends(actor[a])
                                  ELSE [actor[b] EXCEPT !.same = @ /\ mark' = mark]]
    /\ UNCHANGED <<request, exists, slots, counts>>

-----------------------------------------------------------------------------
(* An invocation for a request that ended. *)

Leave(a) ==
    /\ a \in over \ begun
    /\ actor[a].at = "idle" /\ MayStart
    /\ LeaveRow({a})
    /\ over' = over \ {a}
    /\ actor' = [actor EXCEPT ![a] =
                   IF mark # "no" THEN [Idle EXCEPT !.record = "over", !.at = "looks"] ELSE Idle]
    /\ UNCHANGED <<status, queued, shown, messages, begun, counts>>

-----------------------------------------------------------------------------
(* The sweep. *)

ToSweep(it) ==
    IF it.found # "no" \/ it.known # {}
    THEN [Idle EXCEPT !.at = "looks", !.known = it.known, !.empty = it.empty] ELSE Ends(it)

BeginSweep ==
    /\ actor[Sweep].at = "idle" /\ MayStart
    /\ exists
    /\ LET it == [Idle EXCEPT
                    !.left = {r \in slots : status[r] = "ended"}, !.found = mark,
                    !.known = (slots \cap shown) \cup (IF mark = "no" THEN First(1, shown) ELSE {}),
                    !.empty = slots = {} /\ mark = "no"] IN
       actor' = [actor EXCEPT ![Sweep] =
                   IF it.left # {} THEN [it EXCEPT !.at = "frees"] ELSE ToSweep(it)]
    /\ actor' # actor
    /\ UNCHANGED <<request, lane, counts, broken>>

FreeSlots ==
    /\ actor[Sweep].at = "frees"
    /\ LeaveRow(actor[Sweep].left)
    /\ actor' = [actor EXCEPT ![Sweep] = ToSweep(@)]
    /\ UNCHANGED <<request, counts>>

RemoveRow ==
    /\ actor[Sweep].at = "removes"
    /\ LET done == /\ Holds("remove.slots", slots = {})
                   /\ Holds("remove.unmarked", mark = "no") IN
       /\ exists' = (exists /\ ~done)
       /\ slots' = IF done THEN {} ELSE slots
       /\ mark' = IF done THEN "no" ELSE mark
       /\ Breaks(done /\ (slots # {} \/ mark # "no"), "a row in use stays")
    /\ actor' = [b \in Actors |-> IF b = Sweep THEN Idle
                                  ELSE [actor[b] EXCEPT !.same = @ /\ mark' = mark]]
    /\ UNCHANGED <<request, counts>>

-----------------------------------------------------------------------------
Stop(a) ==
    /\ actor[a].at # "idle"
    /\ Count("stops", MaxStops)
    /\ actor' = [actor EXCEPT ![a] = Idle]
    /\ begun' = IF actor[a].record = "begun" THEN begun \cup {a} ELSE begun
    /\ over' = IF actor[a].record = "over" THEN over \cup {a} ELSE over
    /\ UNCHANGED <<status, queued, shown, messages, lane, broken>>

Starts(a) == IF a = Sweep THEN BeginSweep ELSE Enter(a) \/ Leave(a)

Goes(a) ==
    \/ a = Sweep /\ (FreeSlots \/ RemoveRow)
    \/ Send(a) \/ SetWaiting(a) \/ WaitForLane(a) \/ Look(a) \/ Ask(a) \/ EnterNext(a)
    \/ SendNext(a) \/ LeaveQueue(a) \/ GiveBack(a) \/ ClearWaiting(a)

Next ==
    \/ Age
    \/ \E a \in Actors : Starts(a) \/ Goes(a) \/ Stop(a)
    \/ \E r \in Requests :
        \/ Enqueue(r) \/ Cancel(r) \/ Take(r) \/ End(r) \/ Retry(r) \/ Requeue(r) \/ Show(r)
        \/ GiveUp(r) \/ Redeliver(r)

(* Invocations and the sweep go on, workers take and end their jobs, the index catches up. *)
Fairness ==
    /\ WF_vars(Age)
    /\ \A a \in Actors : SF_vars(Starts(a)) /\ WF_vars(Goes(a))
    /\ \A r \in Requests : WF_vars(Take(r) \/ End(r)) /\ WF_vars(Requeue(r)) /\ WF_vars(Show(r))

Spec == Init /\ [][Next]_vars /\ Fairness

-----------------------------------------------------------------------------
NothingBroken == broken = {}
NoMoreThanTheLimit == Cardinality(slots) <= Limit
RunsWithSlot == \A r \in Requests : status[r] = "running" => r \in slots

EveryRequestStarts == \A r \in Requests : (status[r] = "pending") ~> (status[r] # "pending")
EverySlotEnds == \A r \in Requests : (status[r] = "ended") ~> (r \notin slots)
=============================================================================
