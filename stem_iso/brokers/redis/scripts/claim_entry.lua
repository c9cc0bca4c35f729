-- KEYS[1] a queue · ARGV[1] number of an outbox entry -> the server's time; nil where it is gone
return call('HEXISTS', P .. ':out', ARGV[1]) == 1 and number(NOW)
