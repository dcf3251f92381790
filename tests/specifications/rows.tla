-------------------------------- MODULE rows --------------------------------
(* A lane whose slots are spread over rows, one slot each: what lanes.tla does not have, as it has one
   row. An invocation reads all rows at a time, and then writes one after the other: it enters the
   first one that takes it, marks each, clears each, leaves each in which it was.

   Here the index `waiting` shows at once what waits, workers take and send at once, and no
   invocation stops; lanes.tla has these. A mark is a number, a later one is larger. A condition is
   written as Holds(its name, what it says), so that TLC can drop it; conditions.toml says which
   writes of the code these are. *)
EXTENDS Integers, FiniteSets, Sequences

CONSTANTS
    Dropped,      \* the conditions that are left out
    Requests,     \* numbers, in the order of the queue
    Rows,         \* numbers
    Held,         \* the requests that run at the beginning: each has the row before its number
    MaxBusy,      \* invocations at the same time
    MaxMarks,     \* moments at which the lane is marked
    MaxSweeps

Sweep == 0
Actors == Requests \cup {Sweep}

VARIABLES
    status,       \* by request: "none", "pending", "running", "ended"
    queued,       \* the requests whose row has `waiting_lane`
    begun,        \* the requests whose record of PENDING is not dealt with
    over,         \* the requests whose record of an end is not dealt with
    exists,       \* the rows that there are
    slots,        \* of each row
    mark,         \* of each row; 0: none
    clock,        \* the last mark that was made
    sweeps,
    actor,        \* by request: the invocation for its record; and the sweep
    broken        \* the promises that a step has broken

request == <<status, queued, begun, over>>
lane == <<exists, slots, mark>>
vars == <<request, lane, clock, sweeps, actor, broken>>

Holds(condition, what) == condition \in Dropped \/ what
Breaks(when, promise) == broken' = IF when THEN broken \cup {promise} ELSE broken

(* todo: the rows that it has still to write. wanted: whom it enters. free: how many of the slots at
   its look are left. read: the mark that it sets, or has read. waits: whether it has seen a mark.
   left: whose slots it frees. empty: the rows that the sweep removes. *)
Idle == [at |-> "idle", todo |-> {}, wanted |-> {}, entered |-> {}, free |-> 0, first |-> 0,
         read |-> 0, waits |-> FALSE, left |-> {}, known |-> {}, empty |-> {}]

Init ==
    /\ status = [r \in Requests |-> IF r \in Held THEN "running" ELSE "none"]
    /\ queued = {} /\ begun = {} /\ over = {}
    /\ slots = [n \in Rows |-> {n + 1} \cap Held]
    /\ exists = {n \in Rows : slots[n] # {}}
    /\ mark = [n \in Rows |-> 0]
    /\ clock = 0 /\ sweeps = 0
    /\ actor = [a \in Actors |-> Idle]
    /\ broken = {}

MayStart == Cardinality({a \in Actors : actor[a].at # "idle"}) < MaxBusy
First(most, all) == {r \in all : Cardinality({q \in all : q < r}) < most}
Max(all) == CHOOSE m \in all : \A n \in all : n <= m
Least(all) == CHOOSE m \in all : \A n \in all : m <= n
Newest == Max({mark[n] : n \in Rows})
Taken == UNION {slots[n] : n \in Rows}
FreeRows == {n \in Rows : slots[n] = {}}
Has(r) == r \in Taken
Run(all) == [r \in Requests |-> IF r \in all /\ status[r] = "pending" THEN "running" ELSE status[r]]
Rest(it) == IF it.empty = {} THEN Idle ELSE [Idle EXCEPT !.at = "removes", !.todo = it.empty]
Looking(it) == [Idle EXCEPT !.at = "looks", !.known = it.known, !.empty = it.empty]

-----------------------------------------------------------------------------
Enqueue(r) ==
    /\ status[r] = "none"
    /\ status' = [status EXCEPT ![r] = "pending"]
    /\ begun' = begun \cup {r}
    /\ UNCHANGED <<queued, over, lane, clock, sweeps, actor, broken>>

End(r) ==
    /\ status[r] = "running"
    /\ status' = [status EXCEPT ![r] = "ended"]
    /\ over' = over \cup {r}
    /\ UNCHANGED <<queued, begun, lane, clock, sweeps, actor, broken>>

(* An invocation for a request that became PENDING. *)
Begin(r) ==
    /\ actor[r].at = "idle" /\ MayStart
    /\ r \in begun
    /\ begun' = begun \ {r}
    /\ LET may == Newest = 0 /\ FreeRows # {} IN
       actor' = [actor EXCEPT ![r] =
           IF Has(r) THEN [Idle EXCEPT !.at = "sends"]
           ELSE IF may THEN [Idle EXCEPT !.at = "enters", !.todo = FreeRows]
           ELSE [Idle EXCEPT !.at = "waits"]]
    /\ UNCHANGED <<status, queued, over, lane, clock, sweeps, broken>>

(* One slot a row. *)
HasRoom(name, n) ==
    \/ Holds(name \o ".absent", slots[n] = {})
    \/ Holds(name \o ".room", Cardinality(slots[n]) <= 0)

Enter(r) ==
    /\ actor[r].at = "enters"
    /\ \E n \in actor[r].todo :
        LET done == HasRoom("enter", n) /\ Holds("enter.unmarked", mark[n] = 0)
            todo == actor[r].todo \ {n} IN
        /\ slots' = IF done THEN [slots EXCEPT ![n] = @ \cup {r}] ELSE slots
        /\ exists' = IF done THEN exists \cup {n} ELSE exists
        /\ Breaks(done /\ mark[n] # 0, "a newer request does not overtake")
        /\ actor' = [actor EXCEPT ![r].at =
                        IF done THEN "sends" ELSE IF todo = {} THEN "waits" ELSE "enters",
                     ![r].todo = todo]
    /\ UNCHANGED <<request, mark, clock, sweeps>>

Send(r) ==
    /\ actor[r].at = "sends"
    /\ status' = Run({r})
    /\ actor' = [actor EXCEPT ![r] = Idle]
    /\ UNCHANGED <<queued, begun, over, lane, clock, sweeps, broken>>

WaitForLane(r) ==
    /\ actor[r].at = "waits"
    /\ queued' = queued \cup {r}
    /\ actor' = [actor EXCEPT ![r] = [Idle EXCEPT !.at = "marks", !.known = {r}]]
    /\ UNCHANGED <<status, begun, over, lane, clock, sweeps, broken>>

(* The moment is that of its clock, before the first row. *)
BeginMark(a) ==
    /\ actor[a].at \in {"marks", "marks again"}
    /\ clock < MaxMarks
    /\ clock' = clock + 1
    /\ actor' = [actor EXCEPT ![a].at = IF @ = "marks" THEN "sets" ELSE "sets again",
                              ![a].read = clock', ![a].todo = Rows]
    /\ UNCHANGED <<request, lane, sweeps, broken>>

(* After its look, which found the lane unmarked: what it enters is as it was then. *)
SetWaiting(a) ==
    /\ actor[a].at \in {"sets", "sets again"}
    /\ LET it == actor[a]
           n == Least(it.todo)
           todo == it.todo \ {n}
           done == \/ Holds("set_waiting.absent", mark[n] = 0)
                   \/ Holds("set_waiting.later", mark[n] # 0 /\ mark[n] < it.read) IN
       /\ mark' = IF done THEN [mark EXCEPT ![n] = it.read] ELSE mark
       /\ exists' = IF done THEN exists \cup {n} ELSE exists
       /\ Breaks(done /\ mark[n] > it.read, "a mark grows")
       /\ actor' = [actor EXCEPT ![a] =
                       IF todo # {} THEN [it EXCEPT !.todo = todo]
                       ELSE IF it.at = "sets" THEN Looking(it)
                       ELSE [it EXCEPT !.at = "asks"]]
    /\ UNCHANGED <<request, slots, clock, sweeps>>

-----------------------------------------------------------------------------
(* What an invocation does for the queue. *)

Look(a) ==
    /\ actor[a].at = "looks"
    /\ LET it == [actor[a] EXCEPT !.free = Cardinality(FreeRows), !.left = Taken,
                                  !.read = Newest, !.todo = {}] IN
       actor' = [actor EXCEPT ![a] =
           [it EXCEPT !.at = IF Newest = 0 /\ it.known # {} THEN "marks again" ELSE "asks"]]
    /\ UNCHANGED <<request, lane, clock, sweeps, broken>>

(* It asks the index, and reads the rows once more to enter those that are the next. *)
Ask(a) ==
    /\ actor[a].at = "asks"
    /\ LET it == actor[a]
           queue == queued \cup it.known
           held == queue \cap it.left
           first == First(it.free, queue \ it.left) IN
       actor' = [actor EXCEPT ![a] =
           [it EXCEPT !.at = IF first = {} THEN "tells" ELSE "reads", !.wanted = first,
                      !.entered = held, !.first = Cardinality(first), !.left = {}]]
    /\ UNCHANGED <<request, lane, clock, sweeps, broken>>

ReadRows(a) ==
    /\ actor[a].at = "reads"
    /\ LET it == actor[a] IN
       actor' = [actor EXCEPT ![a] =
           [it EXCEPT !.at = "enters next", !.todo = FreeRows,
                      !.entered = @ \cup (it.wanted \cap Taken), !.wanted = @ \ Taken]]
    /\ UNCHANGED <<request, lane, clock, sweeps, broken>>

(* The same write as Enter, without the condition on the mark. *)
EnterNext(a) ==
    /\ actor[a].at = "enters next"
    /\ LET it == actor[a] IN
       IF it.todo = {} \/ it.wanted = {}
       THEN /\ actor' = [actor EXCEPT ![a].at = "tells"]
            /\ UNCHANGED <<exists, slots, broken>>
       ELSE \E n \in it.todo :
            LET r == Least(it.wanted)
                done == HasRoom("enter", n)
                in == IF done THEN {r} ELSE slots[n] \cap it.wanted IN
            /\ slots' = IF done THEN [slots EXCEPT ![n] = @ \cup {r}] ELSE slots
            /\ exists' = IF done THEN exists \cup {n} ELSE exists
            /\ actor' = [actor EXCEPT ![a].todo = @ \ {n}, ![a].wanted = @ \ in,
                                      ![a].entered = @ \cup in]
            /\ UNCHANGED broken
    /\ UNCHANGED <<request, mark, clock, sweeps>>

(* It sends their messages, and takes them out of the queue. *)
Tell(a) ==
    /\ actor[a].at = "tells"
    /\ LET it == actor[a] IN
       /\ status' = Run(it.entered)
       /\ queued' = queued \ it.entered
       /\ actor' = [actor EXCEPT ![a] = IF it.first >= it.free \/ it.read = 0 THEN Rest(it)
                                        ELSE [it EXCEPT !.at = "clears", !.todo = Rows]]
    /\ UNCHANGED <<begun, over, lane, clock, sweeps, broken>>

(* If the mark is old; what was marked by then is in the queue that it has read. *)
ClearWaiting(a) ==
    /\ actor[a].at = "clears"
    /\ \/ /\ actor[a].todo = Rows
          /\ actor' = [actor EXCEPT ![a] = Rest(@)]
          /\ UNCHANGED <<mark, broken>>
       \/ LET it == actor[a]
              n == Least(it.todo)
              todo == it.todo \ {n}
              done == mark[n] # 0 /\ Holds("clear_waiting.read", mark[n] <= it.read) IN
          /\ mark' = IF done THEN [mark EXCEPT ![n] = 0] ELSE mark
          /\ Breaks(done /\ mark[n] > it.read, "a newer mark stays")
          /\ actor' = [actor EXCEPT ![a] = IF todo = {} THEN Rest(it) ELSE [it EXCEPT !.todo = todo]]
    /\ UNCHANGED <<request, exists, slots, clock, sweeps>>

-----------------------------------------------------------------------------
(* An invocation for a request that ended, which reads the rows; and the sweep. *)
Leave(r) ==
    /\ r \in over \ begun
    /\ actor[r].at = "idle" /\ MayStart
    /\ over' = over \ {r}
    /\ actor' = [actor EXCEPT ![r] = [Idle EXCEPT
                   !.at = "leaves", !.left = {r}, !.todo = {n \in Rows : r \in slots[n]},
                   !.waits = Newest # 0]]
    /\ UNCHANGED <<status, queued, begun, lane, clock, sweeps, broken>>

LeaveRow(a) ==
    /\ actor[a].at = "leaves"
    /\ LET it == actor[a] IN
       IF it.todo = {}
       THEN /\ actor' = [actor EXCEPT ![a] = IF it.waits THEN Looking(it) ELSE Rest(it)]
            /\ UNCHANGED <<exists, slots, broken>>
       ELSE LET n == Least(it.todo)
                done == Holds("leave.exists", n \in exists) IN
            /\ slots' = IF done THEN [slots EXCEPT ![n] = @ \ it.left] ELSE slots
            /\ exists' = IF done THEN exists \cup {n} ELSE exists
            /\ Breaks(done /\ n \notin exists, "a row has its limit")
            /\ actor' = [actor EXCEPT ![a].todo = @ \ {n},
                                      ![a].waits = @ \/ (done /\ mark[n] # 0)]
    /\ UNCHANGED <<request, mark, clock, sweeps>>

BeginSweep ==
    /\ actor[Sweep].at = "idle" /\ MayStart
    /\ sweeps < MaxSweeps
    /\ exists # {}
    /\ sweeps' = sweeps + 1
    /\ LET ended == {r \in Taken : status[r] = "ended"}
           known == (Taken \cap queued) \cup (IF Newest = 0 THEN First(1, queued) ELSE {}) IN
       actor' = [actor EXCEPT ![Sweep] = [Idle EXCEPT
                   !.at = "leaves", !.left = ended,
                   !.todo = {n \in Rows : slots[n] \cap ended # {}},
                   !.known = known, !.waits = Newest # 0 \/ known # {},
                   !.empty = {n \in exists : slots[n] = {} /\ mark[n] = 0}]]
    /\ UNCHANGED <<request, lane, clock, broken>>

RemoveRow ==
    /\ actor[Sweep].at = "removes"
    /\ \E n \in actor[Sweep].todo :
        LET done == /\ Holds("remove.slots", slots[n] = {})
                    /\ Holds("remove.unmarked", mark[n] = 0)
            todo == actor[Sweep].todo \ {n} IN
        /\ exists' = IF done THEN exists \ {n} ELSE exists
        /\ slots' = IF done THEN [slots EXCEPT ![n] = {}] ELSE slots
        /\ mark' = IF done THEN [mark EXCEPT ![n] = 0] ELSE mark
        /\ Breaks(done /\ (slots[n] # {} \/ mark[n] # 0), "a row in use stays")
        /\ actor' = [actor EXCEPT ![Sweep] = IF todo = {} THEN Idle ELSE [@ EXCEPT !.todo = todo]]
    /\ UNCHANGED <<request, clock, sweeps>>

-----------------------------------------------------------------------------
Next ==
    \/ BeginSweep \/ RemoveRow
    \/ \E r \in Requests :
        \/ Enqueue(r) \/ End(r) \/ Begin(r) \/ Enter(r) \/ Send(r) \/ WaitForLane(r) \/ Leave(r)
    \/ \E a \in Actors :
        \/ BeginMark(a) \/ SetWaiting(a) \/ Look(a) \/ Ask(a) \/ ReadRows(a) \/ EnterNext(a)
        \/ Tell(a) \/ ClearWaiting(a) \/ LeaveRow(a)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
NothingBroken == broken = {}
NoMoreThanTheLimit == \A n \in Rows : Cardinality(slots[n]) <= 1
RunsWithSlot == \A r \in Requests : status[r] = "running" => Has(r)

(* When all invocations are over, the end of a request looks at the queue, or one that arrives finds
   a free slot: so what waits has a mark, or else only the sweep would find it. *)
WaitsWithMark ==
    (\A a \in Actors : actor[a].at = "idle") /\ queued # {} => Newest # 0
(* And some request that has a slot will leave it. *)
SlotsAreUsed ==
    (\A a \in Actors : actor[a].at = "idle") /\ queued # {} /\ begun = {} /\ over = {}
        => \E r \in Requests : status[r] = "running" /\ Has(r)
=============================================================================
