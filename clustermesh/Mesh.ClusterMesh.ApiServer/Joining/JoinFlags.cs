using System.CommandLine;
using System.Net;
using Mesh.Joining.Listening;

namespace Mesh.ClusterMesh.ApiServer.Joining;

/// <summary>The flags of the join listener: where other clusters come with a token, and where the tokens are.</summary>
internal sealed class JoinFlags
{
    private readonly Option<string> _listen =
        Flag("--join-listen-addr", "", "IP:PORT where other clusters join; open only while a token is usable. Empty for nowhere.");

    private readonly Option<string> _directory = Flag("--join-dir", "", "Directory of tokens and journals, the joinDirectory of cluster.json.");
    private readonly Option<string> _pki = Flag("--pki-dir", "", "Certificates of the cluster; the pki of cluster.json when not given.");

    public IEnumerable<Option> All => [_listen, _directory, _pki];

    /// <returns>Null for no listener; faults are told.</returns>
    public JoinListenerOptions? Read(ParseResult parsed, Action<string> fault)
    {
        var (listen, directory, pki) = (parsed.GetValue(_listen) ?? "", parsed.GetValue(_directory) ?? "", parsed.GetValue(_pki) ?? "");
        if (listen.Length == 0 && directory.Length == 0)
            return null;
        if (listen.Length == 0 || directory.Length == 0)
        {
            fault($"{(listen.Length == 0 ? _listen : _directory).Name}: missing; {_listen.Name} and {_directory.Name} go together");
            return null;
        }
        if (!listen.Contains(':', StringComparison.Ordinal) || !IPEndPoint.TryParse(listen, out var address) || address.Port == 0)
        {
            fault($"{_listen.Name} '{listen}': must be IP:PORT");
            return null;
        }
        if (pki.Length > 0 && !Directory.Exists(pki))
            fault($"{_pki.Name} {pki}: there is no such directory");
        return new JoinListenerOptions
        {
            Address = address,
            JoinDirectory = Path.GetFullPath(directory),
            PkiDirectory = pki.Length > 0 ? Path.GetFullPath(pki) : null,
        };
    }

    private static Option<string> Flag(string name, string byDefault, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
