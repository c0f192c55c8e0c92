using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace Mesh.KVStore;

/// <summary>
/// Cilium's etcd client file: the YAML that says where a cluster's etcd is and which certificates open it. Read by events, not by a
/// reflecting deserialiser, so that it survives trimming. Unknown keys are skipped, since newer peers add some.
/// </summary>
public static class EtcdConfigFile
{
    /// <exception cref="FormatException">The text is not such a file; the message names the field, and the line if there is
    /// one.</exception>
    public static EtcdOptions Parse(string text)
    {
        var endpoints = new List<string>();
        var options = new EtcdOptions { Endpoints = endpoints };
        var insecureTransport = false;
        var seen = new HashSet<string>(StringComparer.Ordinal);
        try
        {
            var parser = new Parser(new StringReader(text));
            parser.Consume<StreamStart>();
            if (!parser.TryConsume<DocumentStart>(out _) || !parser.TryConsume<MappingStart>(out _))
                throw new FormatException("etcd config: not a YAML mapping; it begins with a line like 'endpoints:'");
            while (!parser.TryConsume<MappingEnd>(out _))
            {
                if (!parser.TryConsume<Scalar>(out var name))
                    throw new FormatException($"etcd config, line {parser.Current!.Start.Line}: a field name is expected here");
                if (!seen.Add(name.Value))
                    throw new FormatException($"etcd config, line {name.Start.Line}: '{name.Value}' is given twice");
                switch (name.Value)
                {
                    case "endpoints": ReadEndpoints(parser, endpoints); break;
                    case "trusted-ca-file": options = options with { TrustedCaFile = Text(parser, name.Value) }; break;
                    case "cert-file": options = options with { CertFile = Text(parser, name.Value) }; break;
                    case "key-file": options = options with { KeyFile = Text(parser, name.Value) }; break;
                    case "username": options = options with { Username = Text(parser, name.Value) }; break;
                    case "password": options = options with { Password = Text(parser, name.Value) }; break;
                    case "insecure-transport": insecureTransport = Truth(parser, name.Value); break;
                    case "insecure-skip-tls-verify":
                        options = options with { InsecureSkipTlsVerify = Truth(parser, name.Value) };
                        break;
                    default: parser.SkipThisAndNestedEvents(); break;
                }
            }
        }
        catch (YamlException e)
        {
            throw new FormatException($"etcd config, line {e.Start.Line}: not YAML: {e.Message}", e);
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            // The scanner's way to reject some malformed scalars.
            throw new FormatException($"etcd config: not YAML: {e.Message}", e);
        }
        if (insecureTransport)
            options = options with { TrustedCaFile = null, CertFile = null, KeyFile = null };
        var faults = options.Validate();
        return faults.Count == 0 ? options : throw new FormatException("etcd config: " + string.Join("; ", faults));
    }

    private static void ReadEndpoints(Parser parser, List<string> endpoints)
    {
        if (parser.TryConsume<Scalar>(out var single))
        {
            if (!IsNull(single))
                endpoints.Add(single.Value.Trim());
            return;
        }
        if (!parser.TryConsume<SequenceStart>(out _))
            throw new FormatException($"etcd config, line {parser.Current!.Start.Line}: 'endpoints' must be a list of URLs");
        while (!parser.TryConsume<SequenceEnd>(out _))
            endpoints.Add(Text(parser, "endpoints") ?? throw new FormatException("etcd config: 'endpoints' has an empty entry"));
    }

    private static string? Text(Parser parser, string field)
    {
        if (!parser.TryConsume<Scalar>(out var value))
            throw new FormatException($"etcd config, line {parser.Current!.Start.Line}: '{field}' must be text");
        return IsNull(value) ? null : value.Value.Trim();
    }

    private static bool Truth(Parser parser, string field) => Text(parser, field) switch
    {
        null or "false" or "False" or "FALSE" => false,
        "true" or "True" or "TRUE" => true,
        var other => throw new FormatException($"etcd config: '{field}' is '{other}'; allowed are true and false"),
    };

    private static bool IsNull(Scalar scalar) =>
        scalar.Value.Length == 0 || scalar is { Style: ScalarStyle.Plain, Value: "null" or "~" };
}
