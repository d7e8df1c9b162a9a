defmodule Causeway.Postgres.Options do
  @moduledoc false
  # How to reach a server: a connection string or URI as libpq takes them, keywords in Postgrex's names, or both, which
  # become the pairs of names and values that libpq takes. What it is not asked, libpq finds out for itself: PG*
  # variables, service and password files, several hosts.
  #
  # One list says what there is, what it must be, and what it is for; docs and checks are made of it.

  alias Causeway.Postgres.TLSOptions

  defstruct conninfo: [],
            timeout: 15_000,
            connect_timeout: 15_000,
            prepare: :named,
            disconnect_on_error_codes: []

  @typedoc """
  What is asked of libpq, in order; later pairs override earlier ones, and those of a connection string, which stands
  under `dbname` in the first pair. It is to be expanded there, as with `expand_dbname`, and only there. libpq's
  message about a string that it cannot parse quotes it, with the password it may hold: the port program says
  something else instead.
  """
  @type conninfo :: [{String.t(), String.t()}]

  @type t :: %__MODULE__{
          conninfo: conninfo,
          timeout: timeout,
          connect_timeout: timeout,
          prepare: :named | :unnamed,
          disconnect_on_error_codes: [atom]
        }

  @schema [
    url:
      {:url,
       "a connection string, `\"host=db dbname=shop\"`, or URI, `\"postgresql://db/shop\"`, with anything " <>
         "that libpq knows. Other options override what it says."},
    hostname:
      {:hosts,
       "a name or address, or several separated by commas, tried in order. Default: `PGHOST`, then localhost."},
    port: {:port, "a port for all hosts. Default: `PGPORT`, then 5432."},
    endpoints:
      {:endpoints, "`[{host, port}]`, tried in order; instead of `:hostname` and `:port`."},
    socket_dir:
      {:socket_dir,
       "the folder of a Unix socket, whose name is made of `:port`; instead of `:hostname`."},
    socket:
      {:socket,
       "the path of a Unix socket, `/folder/.s.PGSQL.port`; instead of all of the above."},
    target_server_type:
      {:server_type, "`:any`, `:primary` or `:secondary`: hosts of another type are passed over."},
    username: {:string, "Default: `PGUSER`, then the user that the VM runs as."},
    password: {:string, "Default: `PGPASSWORD`, then the password file."},
    database: {:string, "Default: `PGDATABASE`, then the user's name."},
    parameters:
      {:parameters, "a keyword list of the server's settings, such as `search_path: \"shop\"`."},
    ssl:
      {:ssl,
       "`true`: TLS only, and the server's certificate is verified by the system's authorities; `false`: no " <>
         "TLS; a list of `:ssl` options: #{TLSOptions.names()}. Default: TLS without verification where the " <>
         "server has it."},
    timeout: {:timeout, "milliseconds for a call, or `:infinity`. Default: 15000."},
    connect_timeout:
      {:timeout, "milliseconds until the connection is ready to use. Default: `:timeout`."},
    prepare: {:prepare, "`:named` or, for some poolers, `:unnamed` statements."},
    disconnect_on_error_codes:
      {:codes, "names of errors, such as `:read_only_sql_transaction`, after which to reconnect."}
  ]

  # Names of libpq's that have no other here. Whether this libpq knows them is its own to say.
  @libpq ~w(application_name channel_binding fallback_application_name gssdelegation gssencmode gsslib
    hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
    max_protocol_version min_protocol_version options passfile require_auth requirepeer service ssl_max_protocol_version
    ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslmode sslnegotiation
    sslpassword sslrootcert sslsni target_session_attrs tcp_user_timeout)a

  # Postgrex's, for what is not chosen here: taken, so that its configuration can be, and without effect.
  @without_effect ~w(types transactions disable_composite_types show_sensitive_data_on_connection_error socket_options
    handshake_timeout)a

  @names Keyword.keys(@schema) ++ @libpq ++ @without_effect
  @secret ~w(password sslpassword)

  @doc "Markdown of the options."
  def docs do
    listed = Enum.map_join(@schema, "\n", fn {name, {_, doc}} -> "  * `:#{name}` - #{doc}" end)

    """
    #{listed}

    Also libpq's own names: #{code(@libpq)}. Of Postgrex's, #{code(@without_effect)} are taken and have no effect.
    """
  end

  defp code(names), do: Enum.map_join(names, ", ", &"`:#{&1}`")

  @doc """
  The options, or an `ArgumentError` that names the one that cannot be. A string is the same as `[url: string]`.
  """
  @spec new!(String.t() | keyword) :: t
  def new!(opts) do
    case split!(opts) do
      {options, []} -> options
      {_, [{name, _} | _]} -> bad!(name, "there is no such option; there are #{code(@names)}")
    end
  end

  @doc "As `new!/1`, but options of other names are returned for their owner."
  @spec split!(String.t() | keyword) :: {t, keyword}
  def split!(url) when is_binary(url), do: split!(url: url)

  def split!(opts) do
    # Whatever it is, it may hold a password: it is not shown.
    Keyword.keyword?(opts) ||
      bad!(:options, "expected a keyword list, or a connection string or URI")

    # nil is as good as not given.
    {own, rest} =
      opts
      |> Enum.reject(&match?({_, nil}, &1))
      |> Keyword.split(@names)

    own = for {name, value} <- own, do: {name, check!(name, value)}
    timeout = own[:timeout] || 15_000

    {%__MODULE__{
       conninfo: conninfo(own),
       timeout: timeout,
       connect_timeout: own[:connect_timeout] || timeout,
       prepare: own[:prepare] || :named,
       disconnect_on_error_codes: own[:disconnect_on_error_codes] || []
     }, rest}
  end

  @doc "Adds what libpq is asked, or overrides it."
  @spec put(t, conninfo) :: t
  def put(%__MODULE__{} = options, pairs), do: %{options | conninfo: options.conninfo ++ pairs}

  # ---- what libpq is asked ----

  defp conninfo(own) do
    url(own) ++
      [{"client_encoding", "UTF8"}, {"fallback_application_name", "causeway"}] ++
      server(own) ++
      server_type(own[:target_server_type]) ++
      given(own, username: "user", password: "password") ++
      database(own) ++
      for({name, value} <- own, name in @libpq, do: {"#{name}", to_string(value)}) ++
      parameters(own[:parameters]) ++
      if(own[:ssl] == nil, do: [], else: TLSOptions.conninfo(own[:ssl]))
  end

  defp url(own), do: if(url = own[:url], do: [{"dbname", url}], else: [])
  defp given(own, names), do: for({name, pq} <- names, value = own[name], do: {pq, value})

  # libpq takes the first `dbname` for a connection string if it looks like one; the name of a database may.
  defp database(own) do
    case own[:database] do
      nil ->
        []

      name ->
        plain? = own[:url] != nil or not (name =~ ~r/=|^postgres(ql)?:/)
        [{"dbname", if(plain?, do: name, else: "dbname='#{escape(name, ~r/['\\]/)}'")}]
    end
  end

  defp escape(text, special), do: String.replace(text, special, &"\\#{&1}")

  defp server(own) do
    cond do
      path = own[:socket] -> socket(path)
      dir = own[:socket_dir] -> [{"host", dir}] ++ port(own)
      endpoints = own[:endpoints] -> endpoints(endpoints)
      host = own[:hostname] -> [{"host", host}] ++ port(own)
      elsewhere?(own) -> port(own)
      true -> [{"host", "localhost"}] ++ port(own)
    end
  end

  # Whether libpq gets the host from elsewhere: without any, it would try a Unix socket.
  defp elsewhere?(own) do
    own[:url] || own[:service] || own[:hostaddr] ||
      Enum.any?(~w(PGHOST PGHOSTADDR PGSERVICE), &System.get_env/1)
  end

  defp port(own), do: if(port = own[:port], do: [{"port", "#{port}"}], else: [])

  defp socket(path) do
    [_, dir, port] = Regex.run(~r/^(.+)\/\.s\.PGSQL\.(\d+)$/, path)
    [{"host", dir}, {"port", port}]
  end

  defp endpoints(endpoints) do
    list = fn index -> Enum.map_join(endpoints, ",", &to_string(elem(&1, index))) end
    [{"host", list.(0)}, {"port", list.(1)}]
  end

  defp server_type(nil), do: []
  defp server_type(:secondary), do: [{"target_session_attrs", "standby"}]
  defp server_type(type), do: [{"target_session_attrs", "#{type}"}]

  defp parameters(nil), do: []

  defp parameters(parameters) do
    {name, others} = Keyword.pop(parameters, :application_name)

    settings =
      Enum.map_join(others, " ", fn {key, value} ->
        "-c #{key}=#{escape(to_string(value), ~r/[\s\\]/)}"
      end)

    if(name, do: [{"application_name", to_string(name)}], else: []) ++
      if settings == "", do: [], else: [{"options", settings}]
  end

  # ---- checks ----

  # The value, as it is gone on with. Secrets are not shown, nor is what may hold some.
  defp check!(name, _) when name in @without_effect, do: nil

  defp check!(name, value) when name in @libpq do
    valid?(:scalar, value) || bad!(name, "expected a string, an atom or a number")
    value
  end

  defp check!(:ssl, value), do: TLSOptions.check!(value)

  defp check!(name, value) do
    {type, _} = @schema[name]
    shown = if type in [:string, :url, :parameters], do: "", else: ", got #{inspect(value)}"
    valid?(type, value) || bad!(name, expected(type) <> shown)
    if type == :port and is_binary(value), do: String.to_integer(value), else: value
  end

  defp bad!(name, why), do: raise(ArgumentError, "option #{inspect(name)}: #{why}")

  defp valid?(:string, value), do: string?(value)

  # libpq would take one of another scheme for the name of a database, which the server repeats, with the password.
  defp valid?(:url, value),
    do: string?(value) and (value =~ ~r/^postgres(ql)?:\/\// or not (value =~ ~r/^[^=]*:\/\//))

  defp valid?(:hosts, value), do: string?(value) and value != ""
  defp valid?(:port, port) when is_binary(port), do: port =~ ~r/^\d{1,5}$/
  defp valid?(:port, port), do: port in 1..65_535

  defp valid?(:endpoints, list),
    do: is_list(list) and list != [] and Enum.all?(list, &endpoint?/1)

  defp valid?(:socket_dir, dir), do: string?(dir) and dir =~ ~r/^[\/@]/
  defp valid?(:socket, path), do: string?(path) and path =~ ~r/^[\/@].*\/\.s\.PGSQL\.\d+$/
  defp valid?(:server_type, type), do: type in [:any, :primary, :secondary]
  defp valid?(:timeout, ms), do: ms == :infinity or (is_integer(ms) and ms > 0)
  defp valid?(:prepare, how), do: how in [:named, :unnamed]
  defp valid?(:codes, codes), do: is_list(codes) and Enum.all?(codes, &is_atom/1)

  defp valid?(:parameters, list) do
    Keyword.keyword?(list) and
      Enum.all?(list, fn {name, value} ->
        "#{name}" =~ ~r/^\w+(\.\w+)*$/ and valid?(:scalar, value)
      end)
  end

  defp valid?(:scalar, value) when is_atom(value) or is_number(value), do: true
  defp valid?(:scalar, value), do: string?(value)

  # What ends in a NUL byte for libpq would be another value than the one that was given.
  defp string?(value),
    do: is_binary(value) and String.valid?(value) and not String.contains?(value, <<0>>)

  defp endpoint?({host, port}),
    do: valid?(:hosts, host) and not String.contains?(host, ",") and port in 1..65_535

  defp endpoint?(_), do: false

  defp expected(:string), do: "expected a string, in UTF-8 and without NUL bytes"

  defp expected(:url) do
    "expected a URI that begins with postgresql:// or postgres://, or a string such as \"host=db dbname=shop\", in " <>
      "UTF-8 and without NUL bytes"
  end

  defp expected(:hosts), do: "expected a name or address, or several separated by commas"
  defp expected(:port), do: "expected a number from 1 to 65535"
  defp expected(:endpoints), do: "expected a list of {host, port}"
  defp expected(:socket_dir), do: "expected an absolute path, or @ and an abstract name"

  defp expected(:socket) do
    "expected an absolute path that ends in .s.PGSQL and a port, which is what libpq can connect to; " <>
      "with :socket_dir and :port it makes the name itself"
  end

  defp expected(:server_type), do: "expected :any, :primary or :secondary"
  defp expected(:timeout), do: "expected milliseconds, more than 0, or :infinity"
  defp expected(:prepare), do: "expected :named or :unnamed"
  defp expected(:codes), do: "expected a list of atoms, such as [:read_only_sql_transaction]"

  defp expected(:parameters),
    do: "expected a keyword list of settings with strings, atoms or numbers"

  # ---- showing ----

  @doc "What libpq is asked, with `\"...\"` for what is secret or may hold a secret."
  @spec shown(t) :: conninfo
  def shown(%__MODULE__{conninfo: conninfo}) do
    for {name, value} <- conninfo do
      secret? = name in @secret or (name == "dbname" and value =~ ~r/=|:/)
      {name, if(secret?, do: "...", else: value)}
    end
  end

  defimpl Inspect do
    import Inspect.Algebra

    def inspect(options, opts) do
      fields = options |> Map.from_struct() |> Map.put(:conninfo, @for.shown(options))
      concat(["#Causeway.Postgres.Options<", to_doc(Map.to_list(fields), opts), ">"])
    end
  end
end
