using System.Diagnostics.CodeAnalysis;
using System.Text.Json;

namespace Mesh.ClusterMesh.Wire.Json;

/// <summary>A record that must not be believed; the message is the reason that status shows. Never leaves this project.</summary>
internal sealed class RejectedRecordException(string reason) : Exception(reason);

/// <summary>Reads the fields of one record from an opened reader.</summary>
internal delegate T RecordReader<out T>(ref GoJsonReader reader);

internal static class Decoding
{
    /// <summary>The whole document as one record, or the reason why not.</summary>
    public static bool TryDecode<T>(
        ReadOnlySpan<byte> json,
        StringCache? strings,
        RecordReader<T> read,
        [NotNullWhen(true)] out T? record,
        [NotNullWhen(false)] out string? rejection)
        where T : class
    {
        try
        {
            var reader = new GoJsonReader(json, strings);
            record = read(ref reader);
            reader.End();
            rejection = null;
            return true;
        }
        catch (RejectedRecordException e)
        {
            rejection = e.Message;
        }
        catch (JsonException e)
        {
            rejection = $"malformed JSON: {Quoted.Text(e.Message)}";
        }
        record = null;
        return false;
    }
}
