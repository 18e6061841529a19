"""Everything that must happen as a whole, as Lua that the server runs without interruption.

Keys, all in one hash slot, where `orders` is the queue or topic that everything belongs to:

- `P:{orders}`: a hash of what is declared: `orders` -> queue or topic, `orders--billing` -> subscription,
  `orders--billing--dlq` -> queue.
- `P:{orders}:NAME`: the stream of a queue or subscription, with one consumer group.
- `P:{orders}:NAME:leases`: a sorted set of the ids that are handed out or nacked, by the time they may be delivered
  again. So a message that was taken always has a time at which it comes back, whoever dies.
- `P:{orders}:NAME:delayed`: a sorted set of messages that are not in the stream yet, by the time they enter it.

A delivery is named by entry id and delivery count. The group has two consumers: `held` has what is handed out, and
`waiting` what was nacked; a settlement counts only while `held` has the entry with the same delivery count, so one
that comes late settles nothing.
"""

from __future__ import annotations

from hashlib import sha1

_COMMON = """
local hash, name = KEYS[1], ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local G = 'anybroker'
local function stream(n) return hash .. ':' .. n end
local function leases(n) return hash .. ':' .. n .. ':leases' end
local function delayed(n) return hash .. ':' .. n .. ':delayed' end
local function kind(n) return redis.call('HGET', hash, n) end
local function add(n, body, meta) redis.call('XADD', stream(n), '*', 'body', body, 'meta', meta) end
local function not_found(n) return redis.error_reply('NOTFOUND ' .. n) end
local function held(id, count)
  local found = redis.pcall('XPENDING', stream(name), G, id, id, 1)
  return not found.err and found[1] and found[1][2] == 'held' and found[1][4] == tonumber(count)
end
local function done(id)
  redis.call('XACK', stream(name), G, id)
  redis.call('XDEL', stream(name), id)
  redis.call('ZREM', leases(name), id)
end
"""

_SCRIPTS = {
    # name, create, then a name and its kind for each that is to be there
    "declare": """
for i = 3, #ARGV, 2 do
  local found = kind(ARGV[i])
  if not found and ARGV[2] == '0' then return not_found(ARGV[i]) end
  if found and found ~= ARGV[i + 1] then return redis.error_reply('CONFLICT ' .. ARGV[i] .. ' ' .. found) end
end
for i = 3, #ARGV, 2 do
  redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
  if ARGV[i + 1] ~= 'topic' then redis.pcall('XGROUP', 'CREATE', stream(ARGV[i]), G, '0', 'MKSTREAM') end
end
""",
    # name, whether all that belongs to it goes too
    "delete": """
local gone = ARGV[2] == '1' and redis.call('HKEYS', hash) or {name}
for _, n in ipairs(gone) do
  redis.call('HDEL', hash, n)
  redis.call('DEL', stream(n), leases(n), delayed(n))
end
""",
    # name, mandatory, delay, body, meta; returns how many got it
    "publish": """
local targets = {}
if not kind(name) then return not_found(name) end
if kind(name) == 'topic' then
  local all = redis.call('HGETALL', hash)
  for i = 1, #all, 2 do if all[i + 1] == 'subscription' then targets[#targets + 1] = all[i] end end
else
  targets[1] = name
end
if #targets == 0 and ARGV[2] == '1' then return redis.error_reply('UNROUTABLE ' .. name) end
local delay = tonumber(ARGV[3])
for _, n in ipairs(targets) do
  if delay > 0 then
    redis.call('ZADD', delayed(n), now + delay, cmsgpack.pack({ARGV[4], ARGV[5]}))
  else
    add(n, ARGV[4], ARGV[5])
  end
end
return #targets
""",
    # name, most, lease; returns milliseconds until something is due, the last id, and {id, count, fields} for each
    "fetch": """
if not kind(name) then return not_found(name) end
for _, packed in ipairs(redis.call('ZRANGEBYSCORE', delayed(name), '-inf', now, 'LIMIT', 0, 1000)) do
  add(name, unpack(cmsgpack.unpack(packed)))
  redis.call('ZREM', delayed(name), packed)
end
local most, ends, out = tonumber(ARGV[2]), now + ARGV[3], {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases(name), '-inf', now, 'LIMIT', 0, most)) do
  local entry = redis.call('XCLAIM', stream(name), G, 'held', 0, id)[1]
  if entry then
    local count = redis.call('XPENDING', stream(name), G, id, id, 1)[1][4]
    redis.call('ZADD', leases(name), ends, id)
    out[#out + 1] = {id, count, entry[2]}
  else
    redis.call('ZREM', leases(name), id)
  end
end
if #out < most then
  local new = redis.call('XREADGROUP', 'GROUP', G, 'held', 'COUNT', most - #out, 'STREAMS', stream(name), '>')
  for _, entry in ipairs(new and new[1][2] or {}) do
    redis.call('ZADD', leases(name), ends, entry[1])
    out[#out + 1] = {entry[1], 1, entry[2]}
  end
end
local due = 1000
for _, set in ipairs({leases(name), delayed(name)}) do
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if first[2] then due = math.min(due, math.max(1, (first[2] - now) * 1000)) end
end
local last
local about = redis.call('XINFO', 'STREAM', stream(name))
for i = 1, #about, 2 do if about[i] == 'last-generated-id' then last = about[i + 1] end end
return {due, last, out}
""",
    # name, id, count
    "ack": """
if not held(ARGV[2], ARGV[3]) then return 0 end
done(ARGV[2])
return 1
""",
    # name, id, count, delay
    "nack": """
if not held(ARGV[2], ARGV[3]) then return 0 end
redis.call('XCLAIM', stream(name), G, 'waiting', 0, ARGV[2], 'JUSTID')
redis.call('ZADD', leases(name), now + ARGV[4], ARGV[2])
return 1
""",
    # name, id, count, the dead-letter queue, body, meta
    "reject": """
if not held(ARGV[2], ARGV[3]) then return 0 end
if not kind(ARGV[4]) then return not_found(ARGV[4]) end
add(ARGV[4], ARGV[5], ARGV[6])
done(ARGV[2])
return 1
""",
    # name, id, count, seconds, whether only to make it longer
    "extend": """
if not held(ARGV[2], ARGV[3]) then return 0 end
if ARGV[5] == '1' then
  redis.call('ZADD', leases(name), 'GT', now + ARGV[4], ARGV[2])
else
  redis.call('ZADD', leases(name), now + ARGV[4], ARGV[2])
end
return 1
""",
    # name; returns how many there are, and how many of them are handed out
    "count": """
if not kind(name) then return not_found(name) end
local out = 0
for _, consumer in ipairs(redis.call('XPENDING', stream(name), G)[4] or {}) do
  if consumer[1] == 'held' then out = tonumber(consumer[2]) end
end
return {redis.call('XLEN', stream(name)) + redis.call('ZCOUNT', delayed(name), '-inf', now), out}
""",
    # name; what is handed out goes too, and its settlement then does nothing
    "purge": """
if not kind(name) then return not_found(name) end
redis.call('XTRIM', stream(name), 'MAXLEN', 0)
redis.call('DEL', leases(name), delayed(name))
redis.call('XGROUP', 'DESTROY', stream(name), G)
redis.call('XGROUP', 'CREATE', stream(name), G, '$')
""",
}

TEXT = {script: _COMMON + body for script, body in _SCRIPTS.items()}
SHA = {script: sha1(text.encode()).hexdigest() for script, text in TEXT.items()}
