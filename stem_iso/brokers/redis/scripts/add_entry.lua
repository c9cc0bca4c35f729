-- KEYS[1] a queue · ARGV[1] kind, [2] id, [3] what -> {number of the outbox entry that says so, the server's time}
add_entry(ARGV[1], ARGV[2], ARGV[3])
return { new_entries()[1], number(NOW) }
