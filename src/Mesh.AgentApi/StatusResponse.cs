namespace Mesh.AgentApi;

/// <summary>GET /v1/healthz.</summary>
public sealed record StatusResponse;
