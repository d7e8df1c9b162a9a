defmodule Causeway.Postgres.OptionsTest do
  # The environment is one for all.
  use ExUnit.Case, async: false

  alias Causeway.Postgres.{Options, TLSOptions}

  # Of several pairs with one name, libpq takes the last.
  defp asked(opts), do: Map.new(Options.new!(opts).conninfo)
  defp asked(opts, names), do: Map.take(asked(opts), names)

  defp refused(opts) do
    assert_raise(ArgumentError, fn -> Options.new!(opts) end) |> Exception.message()
  end

  setup do
    names = ~w(PGHOST PGHOSTADDR PGSERVICE SSL_CERT_FILE)
    saved = System.get_env() |> Map.take(names)
    Enum.each(names, &System.delete_env/1)
    on_exit(fn -> Enum.each(names, &System.delete_env/1) && System.put_env(saved) end)
  end

  describe "the server" do
    test "is localhost unless something says otherwise" do
      assert asked([])["host"] == "localhost"
      assert asked(database: "shop", port: 5433, hostname: nil)["host"] == "localhost"
      refute Map.has_key?(asked(service: "shop"), "host")
      refute Map.has_key?(asked(url: "dbname=shop"), "host")
      System.put_env("PGHOST", "/tmp")
      refute Map.has_key?(asked([]), "host")
      assert asked(hostname: "db")["host"] == "db"
    end

    test "one or several hosts" do
      assert asked([hostname: "db", port: "5433"], ~w(host port)) == %{
               "host" => "db",
               "port" => "5433"
             }

      assert asked([hostname: "a,b", port: 1], ~w(host port)) == %{"host" => "a,b", "port" => "1"}

      endpoints = [
        hostname: "no",
        endpoints: [{"a", 1}, {"b", 2}],
        target_server_type: :secondary
      ]

      assert asked(endpoints, ~w(host port target_session_attrs)) ==
               %{"host" => "a,b", "port" => "1,2", "target_session_attrs" => "standby"}

      assert asked(target_server_type: :primary)["target_session_attrs"] == "primary"
      assert asked(target_session_attrs: :"read-write")["target_session_attrs"] == "read-write"
    end

    test "Unix sockets come before hosts" do
      assert asked([socket_dir: "/run", hostname: "no", port: 1], ~w(host port)) ==
               %{"host" => "/run", "port" => "1"}

      assert asked([socket: "/run/pg/.s.PGSQL.5433", socket_dir: "/no"], ~w(host port)) ==
               %{"host" => "/run/pg", "port" => "5433"}

      assert refused(socket: "/run/other") =~ ~r/:socket:.*socket_dir/
      assert refused(socket_dir: "run") =~ ":socket_dir: expected an absolute path"
    end
  end

  test "what is always so" do
    assert %{"client_encoding" => "UTF8", "fallback_application_name" => "causeway"} = asked([])
  end

  test "user, password and database" do
    assert asked([username: "u", password: "p", database: "d"], ~w(user password dbname)) ==
             %{"user" => "u", "password" => "p", "dbname" => "d"}
  end

  describe "a connection string" do
    test "comes first, and is overridden" do
      url = "postgresql://me@a:1,b:2/shop?target_session_attrs=primary"
      assert [{"dbname", ^url} | _] = Options.new!(url).conninfo
      assert Options.new!(url) == Options.new!(url: url)
      assert [{"dbname", ^url} | rest] = Options.new!(url: url, database: "a=b").conninfo
      assert {"dbname", "a=b"} in rest
    end

    test "is never made of a database's name" do
      for name <- ["a=b", "postgresql:x", "it's=\\"] do
        [value] = for {"dbname", value} <- Options.new!(database: name).conninfo, do: value
        assert "dbname='" <> quoted = value
        assert quoted |> String.trim_trailing("'") |> String.replace(~r/\\(.)/, "\\1") == name
      end
    end
  end

  test "settings of the server" do
    parameters = [
      application_name: "shop",
      search_path: "a b\\c",
      statement_timeout: 5,
      "my.x": :y
    ]

    asked = asked(parameters: parameters)
    assert asked["application_name"] == "shop"
    assert asked["options"] == "-c search_path=a\\ b\\\\c -c statement_timeout=5 -c my.x=y"
    assert refused(parameters: ["x; y": 1]) =~ ":parameters: expected a keyword list"
    assert refused(parameters: %{}) =~ ":parameters"
  end

  describe "TLS" do
    @files ~w(sslmode sslrootcert sslcert sslkey sslpassword sslsni)

    test "none, and by the system's authorities" do
      assert asked([ssl: false], @files) == %{"sslmode" => "disable"}
      refute Map.has_key?(asked([]), "sslmode")
      System.put_env("SSL_CERT_FILE", __ENV__.file)
      verified = %{"sslmode" => "verify-full", "sslrootcert" => __ENV__.file}
      assert asked([ssl: true], @files) == verified
      assert asked([ssl: []], @files) == verified
    end

    test "options of Erlang's" do
      ssl = [
        cacertfile: "/ca",
        certfile: ~c"/cert",
        keyfile: "/key",
        password: "p",
        depth: 3,
        server_name_indication: ~c"db",
        customize_hostname_check: [match_fun: fn _, _ -> true end]
      ]

      assert asked([ssl: ssl], @files) == %{
               "sslmode" => "verify-full",
               "sslrootcert" => "/ca",
               "sslcert" => "/cert",
               "sslkey" => "/key",
               "sslpassword" => "p"
             }

      assert asked([ssl: [verify: :verify_none, cacertfile: "/ca"]], @files) == %{
               "sslmode" => "require"
             }

      assert asked([ssl: [server_name_indication: :disable, cacertfile: "/ca"]], @files) ==
               %{"sslmode" => "verify-ca", "sslrootcert" => "/ca", "sslsni" => "0"}

      assert asked(
               [ssl: [versions: [:"tlsv1.3", :"tlsv1.2"]]],
               ~w(ssl_min_protocol_version ssl_max_protocol_version)
             ) ==
               %{"ssl_min_protocol_version" => "TLSv1.2", "ssl_max_protocol_version" => "TLSv1.3"}
    end

    test "what libpq cannot do is refused" do
      assert refused(ssl: [ciphers: []]) =~
               ":ssl, :ciphers: libpq has nothing like it; there are `:verify`"

      assert refused(ssl: [cacerts: ["der"]]) =~ ":cacerts: libpq reads certificates from files"
      assert refused(ssl: [verify: :perhaps]) =~ ":verify_peer or :verify_none"
      assert refused(ssl: "yes") =~ ":ssl"
      assert TLSOptions.names() =~ "`:cacertfile`"
    end
  end

  test "the rest of Postgrex's names" do
    options =
      Options.new!(
        timeout: :infinity,
        connect_timeout: 5,
        prepare: :unnamed,
        disconnect_on_error_codes: [:x],
        types: Some.Types,
        socket_options: [keepalive: true],
        keepalives_idle: 10
      )

    assert %{timeout: :infinity, connect_timeout: 5, prepare: :unnamed} = options
    assert options.disconnect_on_error_codes == [:x]
    assert {"keepalives_idle", "10"} in options.conninfo
    assert Options.new!(timeout: 7).connect_timeout == 7
  end

  test "others are returned, or refused" do
    assert {%Options{}, name: X, pool_size: 2} = Options.split!(name: X, port: 1, pool_size: 2)
    assert refused(hostnam: "db") =~ ~r/option :hostnam: there is no such option; .*`:hostname`/
  end

  test "errors name the option and show what it had" do
    assert refused(port: 0) == "option :port: expected a number from 1 to 65535, got 0"
    assert refused(hostname: ~c"db") =~ ":hostname: expected a name or address"
    assert refused(endpoints: [{"a,b", 1}]) =~ ":endpoints: expected a list of {host, port}"
    assert refused(timeout: -1) =~ ":timeout: expected milliseconds"
    assert refused(target_server_type: :standby) =~ "expected :any, :primary or :secondary"
    assert refused(prepare: :never) =~ ":prepare"
    assert refused(sslmode: ["x"]) =~ ":sslmode"
    assert refused(disconnect_on_error_codes: ["x"]) =~ "list of atoms"
  end

  test "secrets are in no error and no inspection" do
    secret = "tr0ub4dor"

    for opts <- [
          [password: String.to_charlist(secret)],
          [password: secret <> <<0>>],
          [password: <<255>> <> secret],
          [url: {secret}],
          [ssl: [password: {secret}]],
          [parameters: [{"x", secret}]],
          [{"password", secret}],
          %{password: secret},
          {:password, secret}
        ] do
      refute refused(opts) =~ secret
      refute refused(opts) =~ inspect(String.to_charlist(secret))
    end

    for opts <- [
          "postgres://u:#{secret}@db/shop",
          "user=u password=#{secret}",
          [password: secret, database: "shop"],
          [ssl: [password: secret]],
          [sslpassword: secret]
        ] do
      shown = inspect(Options.new!(opts))
      refute shown =~ secret
      assert shown =~ "client_encoding"
    end

    assert inspect(Options.new!(database: "shop")) =~ "shop"
  end

  test "more can be asked by who connects" do
    options =
      Options.put(Options.new!(database: "a"), [{"dbname", "b"}, {"replication", "database"}])

    assert %{"dbname" => "b", "replication" => "database"} = Map.new(options.conninfo)
  end

  test "are documented" do
    for name <- ~w(hostname endpoints socket_dir ssl url),
        do: assert(Options.docs() =~ "`:#{name}` - ")
  end
end
