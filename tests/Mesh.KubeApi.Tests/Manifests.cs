namespace Mesh.KubeApi.Tests;

/// <summary>Objects that the stories are about.</summary>
internal static class Manifests
{
    public const string Pod = """
        apiVersion: v1
        kind: Pod
        metadata: {name: luke, labels: {side: light}}
        spec:
          nodeName: hoth
          containers: [{name: main, image: 'saber:1'}, {name: aside, image: 'droid:1'}]
        """;

    public const string Deployment = """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: fleet}
        spec:
          replicas: 2
          selector: {matchLabels: {app: fleet}}
          template:
            metadata: {labels: {app: fleet}}
            spec: {containers: [{name: ship, image: 'x-wing:1', ports: [{containerPort: 80}], env: [{name: A, value: '1'}]}]}
        """;

    public const string Definition = """
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: ships.rebel.io}
        spec:
          group: rebel.io
          scope: Namespaced
          names: {plural: ships, kind: Ship, shortNames: [sh]}
          versions:
          - name: v1
            served: true
            storage: true
            subresources: {status: {}, scale: {specReplicasPath: .spec.crew, statusReplicasPath: .status.crew}}
            additionalPrinterColumns: [{name: Crew, type: integer, jsonPath: .spec.crew}]
            schema:
              openAPIV3Schema:
                type: object
                properties:
                  spec:
                    type: object
                    required: [crew]
                    properties:
                      crew: {type: integer, minimum: 1}
                      name: {type: string, default: nameless, pattern: '^[a-z]+$'}
                      anything: {type: object, x-kubernetes-preserve-unknown-fields: true}
                      parts:
                        type: array
                        x-kubernetes-list-type: map
                        x-kubernetes-list-map-keys: [name]
                        items: {type: object, required: [name], properties: {name: {type: string}, count: {type: integer}}}
                  status: {type: object, x-kubernetes-preserve-unknown-fields: true}
        """;

    public const string Ship = """
        apiVersion: rebel.io/v1
        kind: Ship
        metadata: {name: falcon}
        spec: {crew: 2}
        """;
}
