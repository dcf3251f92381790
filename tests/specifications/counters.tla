------------------------------ MODULE counters ------------------------------
(* The row of one tracked file, the counters of files by status, and the exact count that corrects
   them: count-files under redelivery; state-manager's changes and resets against a pipeline, and its
   exact count.

   A step that writes is one conditional write or transaction of the code, or is refused by it;
   conditions.toml says which. A condition is written as Holds(its name, what it says), so that TLC
   can drop it.

   The stream delivers any changes together, in any order, and again at any time; an invocation that
   stops, or whose answer is lost, is a redelivery. A refused transaction is tried again without the
   changes that it names, which is another delivery here. Time is in seconds; the clock by which the
   stream dates a change, and that of state-manager, differ by up to two. *)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS
    Dropped,      \* the conditions that are left out
    Shards,       \* rows of the counters
    Managers,     \* invocations of state-manager that count
    Operators,    \* invocations of state-manager that change the file
    Clocks,       \* of the stream: so much later than `now - Skew`
    MaxChanges,   \* of the file's status
    MaxTime

Statuses == {"pending", "running"}
Settle == 2       \* the index is so far behind, at most
Skew == 2
Attributes == {"status", "updated", "manifest", "run"}

VARIABLES
    now,
    file,         \* its status, or "absent"
    changes,      \* of its status, as the stream has them
    marks,        \* the changes that are marked as counted
    rows,         \* of the counters
    drift,        \* what the counters lack from the beginning
    manager,      \* by invocation: its exact count
    operator,     \* by invocation: which attributes are still as it has read them
    broken        \* the promises that a step has broken

vars == <<now, file, changes, marks, rows, drift, manager, operator, broken>>

Holds(condition, what) == condition \in Dropped \/ what
Breaks(when, promise) == broken' = IF when THEN broken \cup {promise} ELSE broken

Uncounted == [does |-> "idle", since |-> 0, place |-> 0, exact |-> "absent", moment |-> 0,
              seen |-> [s \in Shards |-> 0], off |-> [t \in Statuses |-> 0]]
Unread == [does |-> "idle", same |-> {}]

Row1 == CHOOSE s \in Shards : TRUE

Is(status, other) == IF status = other THEN 1 ELSE 0
RECURSIVE Sum(_, _)
Sum(of, all) == IF all = {} THEN 0
                ELSE LET one == CHOOSE x \in all : TRUE IN of[one] + Sum(of, all \ {one})
Counted(status) == Sum([s \in Shards |-> rows[s].by[status]], Shards)
Moved(batch, status) ==
    Sum([c \in batch |-> Is(changes[c].new, status) - Is(changes[c].old, status)], batch)

Init ==
    /\ now = Skew
    /\ file = "absent"
    /\ changes = <<>>
    /\ marks = {}
    /\ \E lacks \in {0, 1} :
        /\ drift = [t \in Statuses |-> IF t = "pending" THEN lacks ELSE 0]
        /\ rows = [s \in Shards |-> [
                     changes |-> IF s = Row1 THEN lacks ELSE 0, from |-> 0,
                     by |-> [t \in Statuses |-> IF s = Row1 THEN -drift[t] ELSE 0]]]
    /\ manager = [m \in Managers |-> Uncounted]
    /\ operator = [o \in Operators |-> Unread]
    /\ broken = {}

-----------------------------------------------------------------------------
(* The file. Whoever works on it may change one attribute and leave the others. *)

Stale(names) == [o \in Operators |-> [operator[o] EXCEPT !.same = @ \ names]]

Move(status) ==
    IF status = file THEN UNCHANGED <<file, changes>>
    ELSE /\ Len(changes) < MaxChanges
         /\ \E clock \in Clocks :
              /\ Len(changes) > 0 => changes[Len(changes)].at <= now - Skew + clock
              /\ changes' = Append(changes, [old |-> file, new |-> status, at |-> now - Skew + clock])
         /\ file' = status

Pipeline ==
    /\ \E status \in Statuses \cup {"absent"} : status # file /\ Move(status)
    /\ operator' = Stale(IF file' = "absent" \/ file = "absent" THEN Attributes ELSE {"status"})
    /\ UNCHANGED <<now, marks, rows, drift, manager, broken>>

Touch(name) ==
    /\ file # "absent"
    /\ operator' = Stale({name})
    /\ operator' # operator
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, manager, broken>>

ReadRow(o) ==
    /\ operator[o].does = "idle"
    /\ file # "absent"
    /\ operator' = [operator EXCEPT ![o] = [does |-> "changes", same |-> Attributes]]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, manager, broken>>

Write(o, promise, compared) ==
    /\ \E status \in Statuses : Move(status)
    /\ operator' = [Stale(Attributes) EXCEPT ![o] = Unread]
    /\ broken' = broken \cup (IF file = "absent" THEN {"a file that is gone stays gone"}
                              ELSE IF ~(compared \subseteq operator[o].same) THEN {promise} ELSE {})
    /\ UNCHANGED <<now, marks, rows, drift, manager>>

ChangeRow(o) ==
    /\ operator[o].does = "changes"
    /\ Holds("change.exists", file # "absent")
    /\ Holds("change.status", "status" \in operator[o].same)
    /\ Holds("change.updated", "updated" \in operator[o].same)
    /\ Write(o, "a change is to the row that was read", {"status", "updated"})

(* With the manifest or the run, one that is late could complete the file. *)
ResetRow(o) ==
    /\ operator[o].does = "changes"
    /\ Holds("reset.exists", file # "absent")
    /\ Holds("reset.status", "status" \in operator[o].same)
    /\ Holds("reset.updated", "updated" \in operator[o].same)
    /\ Holds("reset.manifest", "manifest" \in operator[o].same)
    /\ Holds("reset.run", "run" \in operator[o].same)
    /\ Write(o, "a reset is of the run that was read", Attributes)

Refused(o) ==
    /\ operator[o].does = "changes"
    /\ operator' = [operator EXCEPT ![o] = Unread]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, manager, broken>>

-----------------------------------------------------------------------------
(* count-files: one transaction of a row of the counters and a mark for each change. *)

Count(batch, s) ==
    /\ \A c \in batch : Holds("count.unmarked", c \notin marks)
    /\ \/ Holds("count.never", rows[s].from = 0)
       \/ Holds("count.later", \A c \in batch : rows[s].from <= changes[c].at)
    /\ rows' = [rows EXCEPT ![s] = [@ EXCEPT
                  !.changes = @ + Cardinality(batch),
                  !.by = [t \in Statuses |-> rows[s].by[t] + Moved(batch, t)]]]
    /\ marks' = marks \cup batch
    /\ UNCHANGED <<now, file, changes, drift, manager, operator, broken>>

-----------------------------------------------------------------------------
(* state-manager's exact count. *)

BeginCount(m) ==
    /\ manager[m].does = "idle"
    /\ manager' = [manager EXCEPT ![m] = [Uncounted EXCEPT
                     !.does = "settles", !.since = now, !.place = Len(changes)]]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, operator, broken>>

(* From the index, which shows by now what was written before. *)
CountFiles(m) ==
    /\ manager[m].does = "settles"
    /\ now >= manager[m].since + Settle
    /\ manager' = [manager EXCEPT ![m].does = "counted", ![m].exact = file]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, operator, broken>>

ReadCounters(m) ==
    /\ manager[m].does = "counted"
    /\ manager' = [manager EXCEPT ![m] = [@ EXCEPT
                     !.does = "watches", !.exact = "absent", !.moment = now + Settle,
                     !.seen = [s \in Shards |-> rows[s].changes],
                     !.off = [t \in Statuses |-> Is(manager[m].exact, t) - Counted(t)]]]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, operator, broken>>

(* It reads the stream until there is a later change, or for ten seconds. *)
Watch(m) ==
    LET it == manager[m]
        later == {c \in it.place + 1 .. Len(changes) : changes[c].at > it.moment} IN
    /\ it.does = "watches"
    /\ later # {} \/ now > it.moment + Skew
    /\ manager' = [manager EXCEPT ![m] =
         IF Len(changes) = it.place + Cardinality(later) /\ \E t \in Statuses : it.off[t] # 0
         THEN [it EXCEPT !.does = "corrects", !.moment = 0, !.place = 0] ELSE Uncounted]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, operator, broken>>

Correct(m) ==
    LET it == manager[m] IN
    /\ it.does = "corrects"
    /\ \A s \in Shards :
        IF it.seen[s] = 0 THEN Holds("correct.absent", rows[s].changes = 0)
        ELSE Holds("correct.seen", rows[s].changes = it.seen[s])
    /\ rows' = [s \in Shards |-> [
           changes |-> rows[s].changes + 1,
           from |-> it.since + Settle + 1,
           by |-> [t \in Statuses |-> rows[s].by[t] + IF s = Row1 THEN it.off[t] ELSE 0]]]
    /\ drift' = [t \in Statuses |-> 0]
    /\ manager' = [manager EXCEPT ![m] = Uncounted]
    /\ UNCHANGED <<now, file, changes, marks, operator, broken>>

Stop(m) ==
    /\ manager[m].does # "idle"
    /\ manager' = [manager EXCEPT ![m] = Uncounted]
    /\ UNCHANGED <<now, file, changes, marks, rows, drift, operator, broken>>

Tick ==
    /\ now < MaxTime
    /\ now' = now + 1
    /\ UNCHANGED <<file, changes, marks, rows, drift, manager, operator, broken>>

Next ==
    \/ Tick \/ Pipeline
    \/ \E name \in Attributes \ {"status"} : Touch(name)
    \/ \E o \in Operators : ReadRow(o) \/ ChangeRow(o) \/ ResetRow(o) \/ Refused(o)
    \/ \E s \in Shards, batch \in SUBSET (1 .. Len(changes)) : batch # {} /\ Count(batch, s)
    \/ \E m \in Managers :
        \/ BeginCount(m) \/ CountFiles(m) \/ ReadCounters(m) \/ Watch(m) \/ Correct(m) \/ Stop(m)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
Symmetry == Permutations(Managers) \cup Permutations(Operators)

NothingBroken == broken = {}

(* The changes that the stream will still have counted: the others are in the counters already. *)
Outstanding ==
    {c \in 1 .. Len(changes) : c \notin marks /\ \A s \in Shards : rows[s].from <= changes[c].at}

(* Once all are counted, the counters are the number of files; a correction leaves no drift. *)
CountersAgree ==
    \A t \in Statuses : Counted(t) + Moved(Outstanding, t) + drift[t] = Is(file, t)
=============================================================================
