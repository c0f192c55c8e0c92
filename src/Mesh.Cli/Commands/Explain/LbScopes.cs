using Mesh.Datapath;
using Mesh.Datapath.Maps;

namespace Mesh.Cli.Commands.Explain;

/// <summary>Which of a frontend's two sets of backends a client is given.</summary>
internal sealed class LbScopes(LbScope scope)
{
    public static LbScopes External { get; } = new(LbScope.External);

    public static LbScopes Internal { get; } = new(LbScope.Internal);

    public bool Sees(PinnedFrontend frontend) => frontend.Scope is null || frontend.Scope == scope;
}
