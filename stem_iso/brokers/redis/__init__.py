"""Redis, from 6.2 up, one server or a cluster: the broker for more than one machine.

    si:{queue}   :m id -> record                    all that lives; it leaves with its end, and is rewritten by a successor alone
      ready      :r0 .. :r9 ids                     :d id by due time
      leased     :l id -> token, start              :z id by end of lease
      ended      :s:<id> status, expires            :x letters, :xd by died      :u:<lock> holder
      beside     :c redeliveries :k marked :v revoked :f forgotten :n note :p progress :y why :b bucket :h answered :e waiters
      canvas     :w waits :t its link :o how it began                            :out entries for other slots, :on their numbers
      workers    :g wake-up token      :a ended apart  :i:<boot> newest turn
      operators  :qa alive, :qr of these retried, :q3 :q4 :q5 ended, all by arrival            :qc:<minute> counts

Rules
 1. A script touches one slot, so the same mechanism serves one server and a cluster. What concerns two slots goes through the outbox of the
    first, and each hop may be repeated. Scripts share `common.lua`, whose head is their contract.
 2. Every state follows from where an id stands; `queued` and `running` are never written. An id in a ready list that has no record, or is
    leased, is skipped by whoever meets it.
 3. Only the server's clock counts: due times, ends of leases, expiry.
 4. Any call may be sent twice. Publishing is known by id, for a minute past the end at least; a settlement by its nonce; leases by the
    sequence of their turn. A turn that was lost is taken over by the next one, and cannot happen later.
 5. A script checks its arguments before its first write, and removes last.
 6. A value that cannot be read concerns its own task alone, in scripts as in Python: its neighbours never notice.

  broker                                      the facade: one method for each call of the contract
  driver/                                     talks to servers: addresses, connections, scripts, one server or a cluster
  keys · records · corrupt_records            names, what lies in a slot, and what cannot be read
  publish · exchange · lease · receipts       a task's life
  status · revoke · dead_letters · queues · expire          questions, revokes, what is dropped
  work_watch · result_watch · event_log       who waits: a worker for work, a producer for results, anybody for events
  rate_limits · schedules · workers           slots of their own
  task_list · counts · queue_states · buckets for those who look after the queue: what there is, and what happened
  edit · pauses · commands                    and what they do: run now, edit, pause, send to workers
  outbox · canvas_moves · canvas_placement · canvas         what crosses slots

Not promised: atomicity over two queues; that a lost answer is recognised later than a status's tombstone lives (a minute where the result
is not kept); anything that a failover takes back, but for leases, which then run out.
"""
