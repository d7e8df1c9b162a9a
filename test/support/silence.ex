defmodule Causeway.Silence do
  @moduledoc false
  # For tests that kill what is supervised, which is reported at length:
  #
  #     setup do: Causeway.Silence.logger()

  @doc "Nothing is logged until the test, or with `setup_all` its module, has ended."
  def logger do
    %{level: level} = :logger.get_primary_config()
    :logger.set_primary_config(:level, :none)
    ExUnit.Callbacks.on_exit(fn -> :logger.set_primary_config(:level, level) end)
  end
end
