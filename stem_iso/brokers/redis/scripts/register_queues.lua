-- KEYS[1] the registry · ARGV[1] seconds for which a name is kept, then the names of queues
allow_at_maxmemory()
for i = 2, #ARGV do
  call('ZADD', KEYS[1], 'GT', NOW + tonumber(ARGV[1]), ARGV[i])
end
return redis.status_reply('OK')
