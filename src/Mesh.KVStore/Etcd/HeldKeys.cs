using System.Buffers.Binary;
using Google.Protobuf;

namespace Mesh.KVStore;

/// <summary>
/// Which keys a reader holds, as 64-bit hashes with a seed of their own: 10 to 16 bytes a key whatever its length. Two keys that
/// share a hash (one chance in 10^12 for 5,000 keys) make the count one too small, which an audit answers with a new list and so
/// with a new seed.
/// </summary>
internal sealed class HeldKeys(ulong seed)
{
    private const int SmallestTable = 16;
    private const ulong Multiplier = 0x9E3779B97F4A7C15;

    // Open addressing, linear probing; 0 is an empty slot.
    private ulong[] _slots = new ulong[SmallestTable];

    public int Count { get; private set; }

    public void Add(ByteString key)
    {
        if (Count * 5 >= _slots.Length * 4)
            Grow();
        var hash = Hash(key);
        var at = Find(hash);
        if (_slots[at] != 0)
            return;
        _slots[at] = hash;
        Count++;
    }

    public void Remove(ByteString key)
    {
        var hole = Find(Hash(key));
        if (_slots[hole] == 0)
            return;
        _slots[hole] = 0;
        Count--;
        // Whatever the hole would hide from its own place on moves into it.
        for (var at = Next(hole); _slots[at] != 0; at = Next(at))
        {
            var home = Home(_slots[at]);
            if ((uint)(at - home + (at < home ? _slots.Length : 0)) < (uint)(at - hole + (at < hole ? _slots.Length : 0)))
                continue;
            _slots[hole] = _slots[at];
            _slots[at] = 0;
            hole = at;
        }
    }

    private int Find(ulong hash)
    {
        var at = Home(hash);
        while (_slots[at] != 0 && _slots[at] != hash)
            at = Next(at);
        return at;
    }

    private void Grow()
    {
        var before = _slots;
        _slots = new ulong[before.Length + before.Length / 2];
        foreach (var hash in before)
        {
            if (hash != 0)
                _slots[Find(hash)] = hash;
        }
    }

    private int Home(ulong hash) => (int)Math.BigMul(hash, (ulong)_slots.Length, out _);

    private int Next(int at) => at + 1 == _slots.Length ? 0 : at + 1;

    private ulong Hash(ByteString key)
    {
        var bytes = key.Span;
        var hash = seed ^ (ulong)bytes.Length;
        for (; bytes.Length >= sizeof(ulong); bytes = bytes[sizeof(ulong)..])
            hash = Mix(hash ^ BinaryPrimitives.ReadUInt64LittleEndian(bytes));
        var rest = 0UL;
        foreach (var value in bytes)
            rest = rest << 8 | value;
        hash = Mix(Mix(hash ^ rest) + seed);
        return hash == 0 ? 1 : hash;
    }

    private static ulong Mix(ulong value)
    {
        var high = Math.BigMul(value, Multiplier, out var low);
        return high ^ low ^ value >> 29;
    }
}
