-- KEYS[1] a queue: a worker that was woken has no seat for what is there; another one may have
if call('HLEN', M) > call('HLEN', L) then leave_token() end
return redis.status_reply('OK')
