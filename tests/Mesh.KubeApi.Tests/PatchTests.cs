using System.Text.Json.Nodes;
using Mesh.KubeApi.Patching;
using Mesh.KubeApi.Streams;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>The patches by themselves, with the examples of their own descriptions.</summary>
public class PatchTests
{
    private static JsonObject Node(string json) => (JsonObject)JsonNode.Parse(json)!;

    [Theory]
    [InlineData("""{"a":"b"}""", """{"a":"c"}""", """{"a":"c"}""")]
    [InlineData("""{"a":"b"}""", """{"b":"c"}""", """{"a":"b","b":"c"}""")]
    [InlineData("""{"a":"b","b":"c"}""", """{"a":null}""", """{"b":"c"}""")]
    [InlineData("""{"a":["b"]}""", """{"a":"c"}""", """{"a":"c"}""")]
    [InlineData("""{"a":{"b":"c"}}""", """{"a":{"b":"d","c":null}}""", """{"a":{"b":"d"}}""")]
    [InlineData("""{"a":[{"b":"c"}]}""", """{"a":[1]}""", """{"a":[1]}""")]
    [InlineData("""{}""", """{"a":{"bb":{"ccc":null}}}""", """{"a":{"bb":{}}}""")]
    public void Merge_patches_are_those_of_RFC_7396(string target, string patch, string result) =>
        Assert.Equal(result, MergePatch.Apply(Node(target), Node(patch))!.ToJsonString());

    [Theory]
    [InlineData("""{"foo":["bar","baz"]}""", """[{"op":"add","path":"/foo/1","value":"qux"}]""", """{"foo":["bar","qux","baz"]}""")]
    [InlineData("""{"baz":"qux","foo":"bar"}""", """[{"op":"remove","path":"/baz"}]""", """{"foo":"bar"}""")]
    [InlineData("""{"foo":["all","grass","cows","eat"]}""", """[{"op":"move","from":"/foo/1","path":"/foo/3"}]""", """{"foo":["all","cows","eat","grass"]}""")]
    [InlineData("""{"a/b":1,"m~n":2}""", """[{"op":"test","path":"/a~1b","value":1},{"op":"replace","path":"/m~0n","value":3}]""", """{"a/b":1,"m~n":3}""")]
    [InlineData("""{"foo":["bar"]}""", """[{"op":"add","path":"/foo/-","value":["abc"]}]""", """{"foo":["bar",["abc"]]}""")]
    public void Json_patches_are_those_of_RFC_6902(string target, string patch, string result) =>
        Assert.Equal(result, JsonPatch.Apply(Node(target), JsonNode.Parse(patch)).ToJsonString());

    [Theory]
    [InlineData("""[{"op":"test","path":"/a","value":2}]""")]
    [InlineData("""[{"op":"remove","path":"/b"}]""")]
    [InlineData("""[{"op":"replace","path":"/b/c","value":2}]""")]
    [InlineData("""[{"op":"add","path":"/b/c","value":2}]""")]
    public void A_json_patch_that_does_not_fit_is_refused(string patch) =>
        Assert.Equal(422, Assert.Throws<KubeApiException>(() => JsonPatch.Apply(Node("""{"a":1}"""), JsonNode.Parse(patch))).Code);

    [Fact]
    public void A_strategic_merge_puts_new_containers_first_and_replaces_tolerations()
    {
        // The example of the Kubernetes documentation, "Update API Objects in Place Using kubectl patch".
        var deployment = Node("""{"spec":{"template":{"spec":{"containers":[{"name":"ctr","image":"nginx"}],"tolerations":[{"key":"dedicated"}]}}}}""");
        var patched = new StrategicMergePatch("apps", "Deployment").Apply(deployment,
            Node("""{"spec":{"template":{"spec":{"containers":[{"name":"ctr-2","image":"redis"}],"tolerations":[{"key":"disktype"}]}}}}"""));
        Assert.Equal("""{"containers":[{"name":"ctr-2","image":"redis"},{"name":"ctr","image":"nginx"}],"tolerations":[{"key":"disktype"}]}""",
            patched["spec"]!["template"]!["spec"]!.ToJsonString());
    }

    [Fact]
    public void Directives_delete_replace_order_and_retain()
    {
        var patch = new StrategicMergePatch("", "Pod");
        var ordered = patch.Apply(Node("""{"spec":{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}}"""),
            Node("""
                {"spec":{"$setElementOrder/containers":[{"name":"c"},{"name":"a"}],
                         "containers":[{"name":"b","$patch":"delete"},{"name":"a","image":"x"}]}}
                """));
        Assert.Equal("""[{"name":"c"},{"name":"a","image":"x"}]""", ordered["spec"]!["containers"]!.ToJsonString());
        var values = patch.Apply(Node("""{"metadata":{"finalizers":["a","b"]}}"""),
            Node("""{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["c"]}}"""));
        Assert.Equal("""["b","c"]""", values["metadata"]!["finalizers"]!.ToJsonString());
        var retained = patch.Apply(Node("""{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{}}}}"""),
            Node("""{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}"""));
        Assert.Equal("""{"type":"Recreate"}""", retained["spec"]!["strategy"]!.ToJsonString());
        var replaced = patch.Apply(Node("""{"spec":{"a":{"b":1}}}"""), Node("""{"spec":{"a":{"$patch":"replace","c":2}}}"""));
        Assert.Equal("""{"c":2}""", replaced["spec"]!["a"]!.ToJsonString());
    }

    [Fact]
    public void The_dictionary_of_SPDY_is_the_published_one() => Assert.Equal(HeaderCompression.DictionaryChecksum, HeaderCompression.Checksum());
}
