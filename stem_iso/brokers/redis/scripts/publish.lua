-- KEYS[1] a queue · ARGV (id, record, unique_for | '', name | '' as the one before) for each -> { place from 0, holder, ... } of those whose lock is another's
--
-- What is known by its id, alive or not, changes nothing. The place of a new one in line is that of its arrival; one that is delayed wakes
-- a worker only where it is the first to come due. A batch with a unique lock in it is `publish_locked`: this text behind take_lock.lua, whose
-- price the others do not pay.
local new, refused = {}, {}
for i = 1, #ARGV, 4 do
  if #ARGV[i + 1] < 8 or (ARGV[i + 2] ~= '' and not tonumber(ARGV[i + 2])) then
    return redis.error_reply('ERR publish: ' .. ARGV[i] .. ' has no sound record')
  end
end

-- One question for all, since most are new: only where some are known is each asked for.
local function fresh_ones(first, last)
  local ids, keys = {}, {}
  for i = first, last, 4 do
    ids[#ids + 1] = ARGV[i]
    keys[#keys + 1] = P .. ':s:' .. ARGV[i]
  end
  local alive = call('HMGET', M, unpack(ids))
  local any = call('EXISTS', unpack(keys)) > 0
  for k, id in ipairs(ids) do
    if not alive[k] and not (any and call('EXISTS', keys[k]) == 1) then new[#new + 1] = first + 4 * (k - 1) end
  end
end
for first = 1, #ARGV, 2000 do
  fresh_ones(first, math.min(first + 1999, #ARGV))
end

local lists, delayed, records, places, stored, earliest = {}, {}, {}, {}, {}, nil
local names, name, read = {}, '', 1 -- read: before this place, `name` is the last that was said
for _, i in ipairs(new) do
  local id, record = ARGV[i], ARGV[i + 1]
  if not stored[id] then
    local flags, priority = byte(record, 1, 2)
    local held_by, due = id, nil
    if flags % 32 >= 4 then
      local r = parse(record)
      due = r.due
      if r.lock then held_by = take_lock(r.lock, id, ARGV[i + 2]) end
    end
    if held_by ~= id then
      refused[#refused + 1] = (i - 1) / 4
      refused[#refused + 1] = held_by
    else
      stored[id] = true
      records[#records + 1] = id
      records[#records + 1] = record
      places[#places + 1] = new_place()
      places[#places + 1] = id
      while read <= i do
        if ARGV[read + 3] ~= '' then name = ARGV[read + 3] end
        read = read + 4
      end
      names[name] = (names[name] or 0) + 1
      if due and due > NOW then
        delayed[#delayed + 1] = number(due)
        delayed[#delayed + 1] = id
        if not earliest or due < earliest then earliest = due end
      else
        local list = lists[priority] or {}
        lists[priority] = list
        list[#list + 1] = id
      end
    end
  end
end

write('HSET', M, records)
for priority, ids in pairs(lists) do
  write('RPUSH', P .. ':r' .. priority, ids)
end
if earliest then
  local first = call('ZRANGE', D, 0, 0, 'WITHSCORES')[2]
  write('ZADD', D, delayed)
  if not first or earliest < tonumber(first) then leave_token() end
end
if next(lists) then leave_token() end
list_new(places)
count_enqueued(names)
return refused
